/**
 * Reading the journal of a process while it is written, and after the process was killed.
 */
import { closeSync, openSync, readSync } from "node:fs";
import type { JournalLine } from "./mesh-protocol.js";

type LineOf<Kind extends JournalLine["kind"]> = Extract<JournalLine, { kind: Kind }>;

/** Lines of a journal up to the last refresh, by kind. */
export class Journal {
  readonly begun: LineOf<"begun">[] = [];
  readonly confirmed: LineOf<"confirmed">[] = [];
  readonly rejected: LineOf<"rejected">[] = [];
  readonly statuses: LineOf<"status">[] = [];
  readonly #file: string;
  #offset = 0;
  /** The beginning of a line whose end was not there yet. */
  #rest: Buffer = Buffer.alloc(0);

  /** @param file is made if it is not there */
  constructor(file: string) {
    this.#file = file;
    closeSync(openSync(file, "a"));
  }

  /** Reads what was written since the last time. */
  refresh(): this {
    const descriptor = openSync(this.#file, "r");
    try {
      const chunk = Buffer.alloc(256 * 1024);
      for (;;) {
        const bytes = readSync(descriptor, chunk, 0, chunk.length, this.#offset);
        if (bytes === 0) return this;
        this.#offset += bytes;
        this.#take(Buffer.concat([this.#rest, chunk.subarray(0, bytes)]));
      }
    } finally {
      closeSync(descriptor);
    }
  }

  #take(bytes: Buffer): void {
    const end = bytes.lastIndexOf("\n") + 1;
    this.#rest = bytes.subarray(end);
    for (const text of bytes.toString("utf8", 0, end).split("\n")) {
      if (text === "") continue;
      const line = JSON.parse(text) as JournalLine;
      if (line.kind === "begun") this.begun.push(line);
      else if (line.kind === "confirmed") this.confirmed.push(line);
      else if (line.kind === "rejected") this.rejected.push(line);
      else this.statuses.push(line);
    }
  }
}
