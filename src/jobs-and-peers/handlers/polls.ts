/** Polls of a running peer, in case a notification was lost. An object, because tests poll more often. */
export const polls = {
  /** Interval at which the catalog and the stored messages are polled. */
  everyMs: 5_000,
};
