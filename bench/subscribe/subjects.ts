/**
 * What the bench of subscriptions and its publishing process both know.
 */

/** Digits at the beginning of each payload: they say which one it is, so that order and completeness show in the rows. */
export const numberDigits = 8;

/** What is subscribed. Marks are of another function, on the same connection to NATS: what was sent before is there. */
export const subjects = { row: "bench.subscribe.row", ping: "bench.subscribe.ping", mark: "bench.subscribe.mark" };

/** Where a row of `bench_ping` is announced, with its number. */
export const pingChannel = "bench_pings";
