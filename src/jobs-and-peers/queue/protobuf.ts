/**
 * The part of Protobuf, loaded when a program first uses a schema: loading it takes as long as loading everything else of the entry
 * `hawser`.
 */
import { isSchema } from "../../foundation/payloads/index.js";

type Protobuf = typeof import("../../protobuf/typed/index.js");

let loaded: Protobuf | undefined;
/** Pending while the first call with a schema loads the part. */
let loading: Promise<void> | undefined;

/**
 * Loads the part if a destination needs it. While it is loading, all calls await the same promise, also those without a schema, so
 * that they go on in the order of the calls.
 *
 * @returns undefined if the call need not wait
 */
export function loadingFor(to: unknown): Promise<void> | undefined {
  if (loaded === undefined && loading === undefined && isSchema(to)) {
    loading = import("../../protobuf/typed/index.js").then((module) => {
      loaded = module;
    });
    // The first reaction of the promise: those who await it find that nothing is loading any more.
    const end = (): void => {
      loading = undefined;
    };
    loading.then(end, end);
  }
  return loading;
}

/** The part, after {@link loadingFor} was awaited for a schema. */
export function protobuf(): Protobuf {
  return loaded!;
}
