/**
 * What is counted of one responder: the statistics of ADR-32, and what operators ask beyond them.
 */

/** See above. All are counted since the service began; times are of the functions, without waiting for their turn. */
export class EndpointCounters {
  /** Requests that were answered, also by an error. */
  requests = 0;
  /** Those answered by an error. */
  errors = 0;
  /** Of those: refused because too many were waiting. */
  busy = 0;
  /** Of those: out of time, waiting or running. */
  timedOut = 0;
  /** Messages without a reply subject, or with one that is NATS's own: not requests, and not run. */
  ignored = 0;
  /** Requests whose connection ended before they could be answered. */
  dropped = 0;
  /** "" if there was none. */
  lastError = "";
  processingMs = 0;

  /** A function has run. */
  ran(elapsedMs: number): void {
    this.processingMs += elapsedMs;
  }

  answered(): void {
    this.requests += 1;
  }

  /** Answered by an error. @param status of the reply @param summary without what a function says of a request */
  failed(status: number, summary: string): void {
    this.requests += 1;
    this.errors += 1;
    if (status === 504) this.timedOut += 1;
    this.lastError = `${status}: ${summary}`;
  }
}
