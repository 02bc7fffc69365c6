/** A benchmark that could not be finished, or whose numbers would mean nothing. The message says all; no stack is shown. */
export class BenchFailure extends Error {
  static override readonly name = "BenchFailure";
}
