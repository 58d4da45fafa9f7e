// How an endpoint is loaded: the k6 options, one request, and what is said at the end.
import exec from 'k6/execution';
import http from 'k6/http';
import { Trend } from 'k6/metrics';
import { REGIONS } from './body.js';
import { due, perMinute } from './due.js';
import { settings } from './settings.js';

// Enough points to draw the distribution, from exact percentiles and without writing down every request.
const GRID = [1, 2, 5, 10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 97, 98, 99, 99.5, 99.9, 99.99];

// In an open loop, milliseconds from when a request was due: k6's own http_req_duration begins when it is sent, so that one
// which a busy generator sends late would count as quick. The lag is known to a millisecond, the rest exactly.
const sinceDue = new Trend('since_due_ms');

// More users that k6 makes while it runs would cost the loaded machine time, and the request that calls for one is dropped.
const WAITING = 8;

// Closed loop: `users` requests are always in flight. Open loop: requests start `rate` times a second, however long the
// earlier ones take, at most WAITING times `users` (k6 counts in dropped_iterations what it could not start).
function scenario() {
  const common = { gracefulStop: '30s' };
  if (!settings.rate) {
    return { ...common, executor: 'constant-vus', vus: settings.users, duration: `${settings.seconds}s` };
  }
  return {
    ...common,
    executor: 'constant-arrival-rate',
    rate: perMinute,
    timeUnit: '1m',
    duration: `${settings.seconds}s`,
    preAllocatedVUs: settings.users * WAITING,
    maxVUs: settings.users * WAITING,
  };
}

export function loadOptions({ p99_ms }) {
  return {
    scenarios: { load: scenario() },
    thresholds: {
      http_req_failed: ['rate==0'],
      http_req_duration: [`p(99)<${settings.p99_ms || p99_ms}`],
    },
    // The answers were compared before the load; keeping them here would only cost the generator time.
    discardResponseBodies: true,
    summaryTrendStats: ['count', 'avg', 'min', 'max', ...GRID.map((p) => `p(${p})`)],
  };
}

http.setResponseCallback(http.expectedStatuses(200));

export function post(path, body, type) {
  const lag = perMinute ? Math.max(0, Date.now() - due()) : 0;
  const { timings } = http.post(settings.url + path, body, {
    headers: { Authorization: `Bearer ${settings.token}`, 'Content-Type': type },
  });
  if (perMinute) sinceDue.add(lag + timings.blocked + timings.connecting + timings.duration);
}

// Four weeks of the two years that there are, and a region: others each time, the same ones in every run.
export function report(path) {
  const number = exec.scenario.iterationInTest;
  const month = (number * 7) % 24;
  const [year, number_of_month] = [2024 + Math.floor(month / 12), String((month % 12) + 1).padStart(2, '0')];
  const query = `region=${REGIONS[number % REGIONS.length]}&from=${year}-${number_of_month}-01&to=${year}-${number_of_month}-28`;
  http.get(`${settings.url}${path}?${query}`, {
    headers: { Authorization: `Bearer ${settings.token}` },
    tags: { name: path },
  });
}

function lines(name, data) {
  const took = (data.metrics.since_due_ms || data.metrics.http_req_duration).values;
  const seconds = data.state.testRunDurationMs / 1000;
  const sent = data.metrics.http_reqs.values.count;
  const failed = data.metrics.http_req_failed.values.passes;
  const dropped = data.metrics.dropped_iterations ? data.metrics.dropped_iterations.values.count : 0;
  const ms = (p) => `${p} ${took[p].toFixed(1)} ms`;
  const out = [
    `${name}: ${(sent / seconds).toFixed(1)} requests/s (${sent} in ${seconds.toFixed(1)} s), ${failed} failed`,
    `  latency ${['p(50)', 'p(95)', 'p(99)', 'p(99.9)'].map(ms).join(', ')}`,
  ];
  if (dropped) out.push(`  ${dropped} requests were never started: all users were waiting`);
  for (const [metric, { thresholds }] of Object.entries(data.metrics)) {
    for (const [rule, { ok }] of Object.entries(thresholds || {})) out.push(`  ${ok ? 'kept  ' : 'MISSED'} ${metric} ${rule}`);
  }
  return out.join('\n') + '\n';
}

// Written here and not with k6's own text: that needs either a library from the network or its whole metric list.
export function summaryOf(name) {
  return (data) => {
    if (!data.metrics.http_reqs) return { stdout: `${name}: no request was sent\n` };
    const out = { stdout: lines(name, data) };
    if (settings.summary) out[settings.summary] = JSON.stringify(data);
    return out;
  };
}
