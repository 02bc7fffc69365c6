/**
 * The memory that all lanes of a process share. It is counted in what {@link memoryOf} says.
 */
export class ByteBudget {
  private taken = 0;

  constructor(readonly limitBytes: number) {}

  /** What is taken now. */
  get usedBytes(): number {
    return this.taken;
  }

  /** Takes so much if there is room. One message always fits, so that none is too large for ever. */
  take(bytes: number): boolean {
    if (this.taken > 0 && this.taken + bytes > this.limitBytes) return false;
    this.taken += bytes;
    return true;
  }

  give(bytes: number): void {
    this.taken -= bytes;
  }
}
