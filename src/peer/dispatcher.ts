/** Gives channels with messages their turn: one after another, at most `concurrency` handlers at once. */
import type { ListenerLink } from "./listener-link.js";

export class Dispatcher {
  private readonly woken = new Set<ListenerLink>();
  private running = 0;
  private scheduled = false;

  constructor(private readonly concurrency: number) {}

  wake(link: ListenerLink): void {
    this.woken.add(link);
    this.schedule();
  }

  /** Whether channels wait for their turn. */
  get hasWoken(): boolean {
    return this.woken.size > 0;
  }

  takeSlot(): boolean {
    if (this.running >= this.concurrency) return false;
    this.running += 1;
    return true;
  }

  freeSlot(): void {
    this.running -= 1;
    if (this.woken.size > 0) this.schedule();
  }

  private schedule(): void {
    if (this.scheduled || this.running >= this.concurrency) return;
    this.scheduled = true;
    setImmediate(() => {
      this.scheduled = false;
      const turn = [...this.woken];
      this.woken.clear();
      for (const link of turn) link.run();
    });
  }
}
