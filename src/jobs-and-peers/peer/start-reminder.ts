/** Names the peers whose `start` was forgotten: a process that waits for nothing would otherwise end without a word. */

/** Reminders of peers that have a handler and were not started. They hold names only, so that a dropped peer is freed. */
const due = new Set<StartReminder>();
let isListening = false;

/** Warns when the process ends because it has nothing left to do. Does not keep the process alive. */
export class StartReminder {
  readonly #name: string;
  #isOver = false;

  /** @param name as in `the peer "orders"` */
  constructor(name: string) {
    this.#name = name;
  }

  /** The peer has a handler. Without effect after {@link end}. */
  expectStart(): void {
    if (this.#isOver) return;
    due.add(this);
    if (!isListening) process.once("beforeExit", StartReminder.#warn);
    isListening = true;
  }

  /** The peer was started or stopped. */
  end(): void {
    this.#isOver = true;
    due.delete(this);
  }

  static #warn(this: void): void {
    isListening = false;
    for (const reminder of due) {
      due.delete(reminder);
      const text = `${reminder.#name} has handlers and was never started: await its start(), or stop() it`;
      process.emitWarning(text, { code: "HAWSER_NOT_STARTED", type: "HawserWarning" });
    }
  }
}
