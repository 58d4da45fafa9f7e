// /duckdb/report/: four weeks and a region of five million order lines, answered by DuckDB over tables that each web process holds. Options: lib/settings.js.
import { loadOptions, report, summaryOf } from './lib/load.js';

export const options = loadOptions({ p99_ms: 2000 });
export default function () {
  report('/duckdb/report/');
}
export const handleSummary = summaryOf('duckdb_report');
