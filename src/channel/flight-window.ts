import { Fifo } from "../runtime/index.js";

/** A batch on the wire that the listener has not acknowledged wholly. */
interface Flight {
  readonly lastNumber: number;
  readonly bytes: number;
}

/** What may be written to a connection: numbered messages as far as credit goes, and none that the listener refuses. */
export class FlightWindow {
  /** Payload bytes that may be in flight. */
  credit = 0;
  readonly #flights = new Fifo<Flight>();
  #bytes = 0;
  #maxMessageBytes = Number.POSITIVE_INFINITY;

  /** A new connection: nothing is in flight. */
  open(credit: number, maxMessageBytes: number): void {
    this.#flights.clear();
    this.#bytes = 0;
    this.credit = credit;
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Whether `size` bytes more may be written behind `batched` ones. One message always may when nothing is in flight. */
  hasCredit(size: number, batched: number): boolean {
    const inFlight = this.#bytes + batched;
    return (inFlight === 0 && this.#flights.length === 0) || inFlight + size <= this.credit;
  }

  /** A batch up to this number was written. */
  wrote(lastNumber: number, bytes: number): void {
    this.#flights.push({ lastNumber, bytes });
    this.#bytes += bytes;
  }

  /** The listener has acknowledged everything up to this number. */
  landed(number: number): void {
    for (let flight = this.#flights.at(0); flight && flight.lastNumber <= number; flight = this.#flights.at(0)) {
      this.#bytes -= flight.bytes;
      this.#flights.shift();
    }
  }

  /** A message that the listener does not take over the connection: its limit is lower than when it was offered. */
  isTooLong({ payload, encoding }: SizedMessage): boolean {
    return (encoding === undefined ? payload.length : encoding.uncompressedBytes) > this.#maxMessageBytes;
  }
}

interface SizedMessage {
  readonly payload: Uint8Array;
  readonly encoding: { readonly uncompressedBytes: number } | undefined;
}
