// When a request of an open loop was due. k6 starts requests in the order in which they are due; one that it drops for want of
// users leaves its place to the next, which then counts from there, as if it had waited in the other's stead.
import exec from 'k6/execution';
import { settings } from './settings.js';

// k6 takes whole numbers: requests a minute are fine enough.
export const perMinute = Math.round(settings.rate * 60);

// By the wall clock, milliseconds; in a closed loop a request is due when it is sent.
export function due() {
  if (!perMinute) return Date.now();
  const { startTime, iterationInTest } = exec.scenario;
  return startTime + (iterationInTest * 60000) / perMinute;
}
