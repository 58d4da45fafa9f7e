// /baseline/table/: 10,000 Arrow rows filtered, joined, grouped and sorted in plain Python. Options: lib/settings.js.
import { tableBody } from './lib/body.js';
import { loadOptions, post, summaryOf } from './lib/load.js';

const body = tableBody();

export const options = loadOptions({ p99_ms: 5000 });
export default function () {
  post('/baseline/table/', body, 'application/vnd.apache.arrow.stream');
}
export const handleSummary = summaryOf('baseline_table');
