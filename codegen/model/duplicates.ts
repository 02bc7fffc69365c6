import type { AnyDesc } from "@bufbuild/protobuf";
import { elementOf, fileOf, SpecError } from "./spec-error.js";

/** @throws SpecError at the element if two of the parts it lists (`what`, in the plural) have one name. */
export function refuseTwins(where: AnyDesc, what: string, parts: readonly { readonly name: string }[]): void {
  const seen = new Set<string>();
  for (const { name } of parts) {
    if (seen.has(name)) {
      throw new SpecError(where, `two of its ${what} are named "${name}"; each needs a name of its own`);
    }
    seen.add(name);
  }
}

/** The names taken within one space, such as all tables; the second to take a name is refused. */
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
