// /baseline/report/: four weeks and a region of five million order lines, answered by the Django ORM. Options: lib/settings.js.
import { loadOptions, report, summaryOf } from './lib/load.js';

export const options = loadOptions({ p99_ms: 20000 });
export default function () {
  report('/baseline/report/');
}
export const handleSummary = summaryOf('baseline_report');
