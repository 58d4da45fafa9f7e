// One body, again and again, to a path that the run names. Options: ../lib/settings.js (MOLT_BODY must be given), and
//   MOLT_PATH  the endpoint (/offload/)
//   MOLT_TYPE  the body's content type (application/json)
import { loadOptions, post, summaryOf } from '../lib/load.js';
import { settings } from '../lib/settings.js';

const body = open(settings.body, 'b');
const path = __ENV.MOLT_PATH || '/offload/';
const type = __ENV.MOLT_TYPE || 'application/json';

export const options = loadOptions({ p99_ms: 60000 });
export default function () {
  post(path, body, type);
}
export const handleSummary = summaryOf('peers');
