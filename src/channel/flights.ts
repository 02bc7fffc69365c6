import { Fifo } from "../runtime/index.js";

/** A batch on the wire that the listener has not acknowledged wholly. */
interface Flight {
  readonly lastNumber: number;
  readonly bytes: number;
}

/** The numbered messages that were written to a connection and not acknowledged, as both ends count them. */
export class Flights {
  /** Payload bytes in flight. */
  bytes = 0;
  readonly #flights = new Fifo<Flight>();

  clear(): void {
    this.#flights.clear();
    this.bytes = 0;
  }

  /** A batch up to this number was written, or has come. */
  push(lastNumber: number, bytes: number): void {
    this.#flights.push({ lastNumber, bytes });
    this.bytes += bytes;
  }

  /** The listener acknowledges everything up to this number. */
  landed(number: number): void {
    for (let flight = this.#flights.at(0); flight && flight.lastNumber <= number; flight = this.#flights.at(0)) {
      this.bytes -= flight.bytes;
      this.#flights.shift();
    }
  }
}
