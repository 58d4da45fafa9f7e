// /offload/table/: 10,000 Arrow rows filtered, joined, grouped and sorted by molt_worker, where they lie. Options: lib/settings.js.
import { tableBody } from './lib/body.js';
import { loadOptions, post, summaryOf } from './lib/load.js';

const body = tableBody();

export const options = loadOptions({ p99_ms: 500 });
export default function () {
  post('/offload/table/', body, 'application/vnd.apache.arrow.stream');
}
export const handleSummary = summaryOf('offload_table');
