import { Fifo } from "../../foundation/runtime/index.js";

/** A batch on the wire that the listener has not fully acknowledged. */
interface Flight {
  readonly lastNumber: number;
  readonly bytes: number;
}

/** Numbered messages written to a connection and not acknowledged. Sender and listener keep the same count. */
export class Flights {
  /** Payload bytes in flight. */
  bytes = 0;
  readonly #flights = new Fifo<Flight>();

  clear(): void {
    this.#flights.clear();
    this.bytes = 0;
  }

  /** Adds a batch whose last number is `lastNumber`, when it is written or received. */
  push(lastNumber: number, bytes: number): void {
    this.#flights.push({ lastNumber, bytes });
    this.bytes += bytes;
  }

  /** Removes the batches that end at or below `number`. */
  acknowledge(number: number): void {
    for (let flight = this.#flights.at(0); flight && flight.lastNumber <= number; flight = this.#flights.at(0)) {
      this.bytes -= flight.bytes;
      this.#flights.shift();
    }
  }
}
