// /polars/report/: four weeks and a region of five million order lines, answered by Polars over tables that each web process holds. Options: lib/settings.js.
import { loadOptions, report, summaryOf } from './lib/load.js';

export const options = loadOptions({ p99_ms: 2000 });
export default function () {
  report('/polars/report/');
}
export const handleSummary = summaryOf('polars_report');
