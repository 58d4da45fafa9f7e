// /offload/: the order summary, offloaded to molt_worker. Options: lib/settings.js.
import { orderBody } from './lib/body.js';
import { loadOptions, post, summaryOf } from './lib/load.js';

const body = orderBody();

export const options = loadOptions({ p99_ms: 500 });
export default function () {
  post('/offload/', body, 'application/json');
}
export const handleSummary = summaryOf('offload');
