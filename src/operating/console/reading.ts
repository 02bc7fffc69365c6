/** Reading for a section: a section whose data cannot be read says so, and the others are shown. */
import { errorMessageOf, HawserError, withoutPasswords } from "../../foundation/errors/index.js";
import { isServerError, lacksPrivilege, queryCanceled, sqlstateOf } from "../../foundation/postgres/index.js";

/** Result of a reading. */
export type Reading<T> =
  | { readonly state: "read"; readonly value: T }
  /** The login lacks the privilege; `why` is the message of Postgres. */
  | { readonly state: "denied"; readonly why: string }
  | {
      readonly state: "failed";
      readonly why: string;
      /** True if Postgres could not be reached, or did not answer. */
      readonly isAway: boolean;
    };

/** Runs a reading. Only a defect rejects. */
export async function reading<T>(read: () => Promise<T>): Promise<Reading<T>> {
  try {
    return { state: "read", value: await read() };
  } catch (error) {
    if (!(error instanceof HawserError)) throw error;
    if (lacksPrivilege(error)) return { state: "denied", why: errorMessageOf(error.cause ?? error) };
    if (sqlstateOf(error) === queryCanceled) return { state: "failed", why: tooLong, isAway: false };
    return { state: "failed", why: withoutPasswords(error.message), isAway: !isServerError(error.cause) };
  }
}

const tooLong = "Postgres ended the statement, because there is too much to read, and it took too long";
