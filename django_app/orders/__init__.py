"""The demo's workload: the order summary, three times over. `orders.rules` is what all three keep."""
