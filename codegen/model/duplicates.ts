import type { AnyDesc } from "@bufbuild/protobuf";
import { elementOf, fileOf, SpecError } from "./spec-error.js";

/**
 * Refuses parts with the same name.
 *
 * @param what plural noun of the parts, for the error
 * @throws SpecError at `where`
 */
export function refuseDuplicates(where: AnyDesc, what: string, parts: readonly { readonly name: string }[]): void {
  const seen = new Set<string>();
  for (const { name } of parts) {
    if (seen.has(name)) {
      throw new SpecError(where, `two ${what} are named "${name}"; give each a different name`);
    }
    seen.add(name);
  }
}

/** Names used within one namespace, such as all tables. A second use of a name is refused. */
export class TakenNames {
  readonly #owners = new Map<string, AnyDesc>();

  readonly #what: string;

  constructor(what: string) {
    this.#what = what;
  }

  /** @throws SpecError naming both elements if `name` is taken. */
  take(name: string, where: AnyDesc): void {
    const owner = this.#owners.get(name);
    if (owner !== undefined) {
      throw new SpecError(
        where,
        `${this.#what} "${name}" is taken by ${elementOf(owner)} in ${fileOf(owner).proto.name}; choose another`,
      );
    }
    this.#owners.set(name, where);
  }
}
