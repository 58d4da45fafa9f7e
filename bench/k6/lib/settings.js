// What a run can be told through its environment; with none of it, the scripts load 127.0.0.1:8000 for ten seconds.
//   MOLT_URL      where Django listens            MOLT_TOKEN    the API token
//   MOLT_USERS    requests in flight (16)         MOLT_SECONDS  how long (10)
//   MOLT_RATE     requests a second: turns the fixed number of users into a constant arrival rate
//   MOLT_LINES    order lines in a generated body (2000)        MOLT_SEED  its seed (1)
//   MOLT_BODY     a file to send in place of the generated body
//   MOLT_P99_MS   the threshold on p99, in place of the script's own
//   MOLT_SUMMARY  a file that gets all metrics as JSON
const number = (name, otherwise) => {
  const given = __ENV[name];
  if (given === undefined || given === '') return otherwise;
  const value = Number(given);
  if (!(value > 0)) throw new Error(`${name}=${given} is not a number above 0`);
  return value;
};

export const settings = {
  url: (__ENV.MOLT_URL || 'http://127.0.0.1:8000').replace(/\/+$/, ''),
  token: __ENV.MOLT_TOKEN || 'demo-token',
  users: number('MOLT_USERS', 16),
  seconds: number('MOLT_SECONDS', 10),
  rate: number('MOLT_RATE', 0),
  lines: number('MOLT_LINES', 2000),
  seed: number('MOLT_SEED', 1),
  body: __ENV.MOLT_BODY || '',
  p99_ms: number('MOLT_P99_MS', 0),
  summary: __ENV.MOLT_SUMMARY || '',
};
