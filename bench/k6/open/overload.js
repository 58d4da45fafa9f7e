// An open loop against one endpoint: requests start when they are due, however long the earlier ones take, and each time is
// counted from when the request was due, not from when it was sent. Options: ../lib/settings.js, and
//   MOLT_PATH         the endpoint (/offload/)
//   MOLT_DEADLINE_MS  an answer that comes later is of no use (500); after twice that long the client hangs up
// MOLT_USERS is the most that may be in flight; a request for which none is left is a dropped iteration. Without MOLT_RATE the
// loop is closed, which shows what can be answered at most.
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';
import { orderBody } from '../lib/body.js';
import { due, perMinute } from '../lib/due.js';
import { settings } from '../lib/settings.js';

const body = orderBody();
const deadline = Number(__ENV.MOLT_DEADLINE_MS || 500);
const url = settings.url + (__ENV.MOLT_PATH || '/offload/');
const request = {
  headers: { Authorization: `Bearer ${settings.token}`, 'Content-Type': 'application/json' },
  timeout: `${2 * deadline}ms`,
};

// What became of every request. Accepted: all but those that were told at once to come back later.
const counters = {
  in_time: new Counter('in_time'),
  late: new Counter('late'),
  busy: new Counter('busy'),
  timeout: new Counter('timeout'),
  gave_up: new Counter('gave_up'),
  other: new Counter('other'),
};
const accepted = new Trend('accepted_ms');
// Every request, for who wants them one by one (`k6 run --out json=FILE`).
const took_ms = new Trend('took_ms');

function scenario() {
  const common = { duration: `${settings.seconds}s`, gracefulStop: '30s' };
  if (!perMinute) return { ...common, executor: 'constant-vus', vus: settings.users };
  return {
    ...common,
    executor: 'constant-arrival-rate',
    rate: perMinute,
    timeUnit: '1m',
    preAllocatedVUs: settings.users,
    maxVUs: settings.users,
  };
}

export const options = {
  scenarios: { load: scenario() },
  discardResponseBodies: true,
  summaryTrendStats: ['count', 'max', 'p(50)', 'p(99)', 'p(99.9)'],
};

function outcome(status, took) {
  if (status === 200) return took <= deadline ? 'in_time' : 'late';
  return { 503: 'busy', 429: 'busy', 504: 'timeout', 0: 'gave_up' }[status] || 'other';
}

export default function () {
  const wasDue = due();
  const { status } = http.post(url, body, request);
  const took = Math.max(0, Date.now() - wasDue);
  const what = outcome(status, took);
  counters[what].add(1);
  took_ms.add(took, { outcome: what, answered: String(status) });
  if (what !== 'busy') accepted.add(took);
}

export function handleSummary(data) {
  const out = { stdout: '' };
  if (settings.summary) out[settings.summary] = JSON.stringify(data);
  return out;
}
