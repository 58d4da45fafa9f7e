// /offload/report/: four weeks and a region of five million order lines, answered by molt_worker over tables that lie in shared memory once. Options: lib/settings.js.
import { loadOptions, report, summaryOf } from './lib/load.js';

export const options = loadOptions({ p99_ms: 2000 });
export default function () {
  report('/offload/report/');
}
export const handleSummary = summaryOf('offload_report');
