/**
 * Constants that the bench of subscriptions shares with its publishing process.
 */

/** Digits at the beginning of each payload: they say which one it is, so that order and completeness show in the rows. */
export const numberDigits = 8;

/** Subscribed subjects. Marks go to another function over the same NATS connection: messages sent before a mark are there. */
export const subjects = { row: "bench.subscribe.row", ping: "bench.subscribe.ping", mark: "bench.subscribe.mark" };

/** Channel that announces each row of `bench_ping` by its number. */
export const pingChannel = "bench_pings";
