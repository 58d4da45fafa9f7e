// Request bodies: a file named in MOLT_BODY, or order lines generated from a seed, so that `k6 run` needs nothing else.
import { settings } from './settings.js';

// As in django_app/orders/generate.py; a test holds the two together.
export const REGIONS = ['central', 'east', 'north', 'northeast', 'northwest', 'south', 'southwest', 'west'];
const CATEGORIES = ['books', 'clothing', 'electronics', 'garden', 'grocery', 'sports', 'tools', 'toys'];
const DISCOUNTS = ['0', '0.05', '0.1', '0.125', '0.15', '0.2', '0.0375'];
const QUANTITIES = [1, 1, 2, 3, 5, 8, 12, 25, 60];
const CUSTOMERS = 500;

// mulberry32 by Tommy Ettinger (public domain): 32 bits of state, the same numbers for the same seed everywhere.
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export function generate(lines, seed) {
  const next = random(seed);
  const below = (n) => Math.floor(next() * n);
  const oneOf = (choices) => choices[below(choices.length)];
  const orders = [];
  for (let id = 1; id <= lines; id += 1) {
    orders.push({
      id,
      customer: `C${String(below(CUSTOMERS)).padStart(5, '0')}`,
      region: oneOf(REGIONS),
      category: oneOf(CATEGORIES),
      qty: oneOf(QUANTITIES),
      price: ((100 + below(99900)) / 100).toFixed(2),
      discount: oneOf(DISCOUNTS),
      ts: 1760000000 + id,
    });
  }
  return JSON.stringify({ min_amount: 10, orders });
}

// Bytes from a file go to the wire as they are; k6 would encode a string anew for every request.
export function orderBody() {
  return settings.body ? open(settings.body, 'b') : generate(settings.lines, settings.seed);
}

export function tableBody() {
  const file = settings.body || import.meta.resolve('../../data/table-10000.arrow').replace('file://', '');
  try {
    return open(file, 'b');
  } catch (reason) {
    throw new Error(`${file} cannot be read (${reason.message || reason}); hint: make it with \`python -m bench data\``);
  }
}
