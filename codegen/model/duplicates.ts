import type { AnyDesc } from "@bufbuild/protobuf";
import { elementOf, fileOf, SpecError } from "./spec-error.js";

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
