// /tuned/: the order summary in the best Python there is (msgspec, integer cents). Options: lib/settings.js.
import { orderBody } from './lib/body.js';
import { loadOptions, post, summaryOf } from './lib/load.js';

const body = orderBody();

export const options = loadOptions({ p99_ms: 2500 });
export default function () {
  post('/tuned/', body, 'application/json');
}
export const handleSummary = summaryOf('tuned');
