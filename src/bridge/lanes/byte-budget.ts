/**
 * The memory that all lanes of a process share. It is counted in what {@link memoryOf} says.
 *
 * A lane that gets more than its function can do would take all of it, and the others would lose their messages. So the last
 * quarter is divided: there, a lane takes no more than its part. A lane that is alone has all.
 */
export class ByteBudget {
  private taken = 0;
  private lanes = 0;

  constructor(readonly limitBytes: number) {}

  /** What is taken now. */
  get usedBytes(): number {
    return this.taken;
  }

  /** Another lane takes part, until it leaves. */
  join(): void {
    this.lanes += 1;
  }

  leave(): void {
    this.lanes -= 1;
  }

  /**
   * Takes so much if there is room. One message always fits, so that none is too large for ever.
   *
   * @param held what the lane has taken before
   */
  take(bytes: number, held: number): boolean {
    if (this.taken > 0 && !this.hasRoom(bytes, held)) return false;
    this.taken += bytes;
    return true;
  }

  give(bytes: number): void {
    this.taken -= bytes;
  }

  private hasRoom(bytes: number, held: number): boolean {
    const part = this.limitBytes / 4 / Math.max(1, this.lanes);
    const isForAll = this.taken + bytes <= this.limitBytes - part * Math.max(0, this.lanes - 1);
    return isForAll || (held + bytes <= part && this.taken + bytes <= this.limitBytes);
  }
}
