// /baseline/: the order summary in plain Python. Options: lib/settings.js.
import { orderBody } from './lib/body.js';
import { loadOptions, post, summaryOf } from './lib/load.js';

const body = orderBody();

export const options = loadOptions({ p99_ms: 5000 });
export default function () {
  post('/baseline/', body, 'application/json');
}
export const handleSummary = summaryOf('baseline');
