/**
 * The part of Protobuf, loaded when a program first uses a schema: loading it takes as long as loading everything else of the entry
 * `hawser`.
 */
import { HawserError } from "../../foundation/errors/index.js";
import { isSchema } from "../../foundation/payloads/index.js";

type Protobuf = typeof import("../../protobuf/typed/index.js");

let loaded: Protobuf | undefined;
/** Why it could not be loaded. */
let failure: unknown;
/** Pending while the first call with a schema loads the part. Does not reject. */
let loading: Promise<void> | undefined;

/**
 * Loads the part if a destination needs it. While it is loading, all calls await the same promise, also those without a schema, so
 * that they go on in the order of the calls.
 *
 * @returns undefined if the call need not wait
 */
export function loadingFor(to: unknown): Promise<void> | undefined {
  if (loaded === undefined && loading === undefined && isSchema(to)) {
    loading = import("../../protobuf/typed/index.js").then(
      (module) => {
        loaded = module;
      },
      (error: unknown) => {
        failure = error;
      },
    );
    // The first reaction of the promise: those who await it find that nothing is loading any more.
    void loading.then(() => {
      loading = undefined;
    });
  }
  return loading;
}

/**
 * The part, after {@link loadingFor} was awaited for a schema.
 *
 * @throws HawserError `invalid_argument` if it could not be loaded
 */
export function protobuf(): Protobuf {
  if (loaded !== undefined) return loaded;
  const why = failure instanceof Error ? failure.message : String(failure);
  throw new HawserError(
    "invalid_argument",
    `a schema of Protobuf is given, and the part of Hawser for it cannot be loaded: ${why}; install the package @bufbuild/protobuf, or bundle all of Hawser`,
    { cause: failure },
  );
}
