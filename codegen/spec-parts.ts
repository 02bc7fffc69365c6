import type { DescFile, FileRegistry } from "@bufbuild/protobuf";
import { generateDocs } from "./docs/generate.js";
import { generateErrors } from "./errors/generate.js";
import { readSpec, type Spec } from "./model/spec.js";
import type { GeneratedFile, Generator } from "./plugin.js";
import { generateSettings } from "./settings/generate.js";
import { generateValidators } from "./validators/generate.js";

/** Generators by the folder below `generated/` that their files go to. */
export type Generators = Readonly<Record<string, Generator>>;

/** What is made of any spec, Hawser's or a user's. */
export const partGenerators: Generators = {
  // Rules as checks, for frames and for columns.
  "ts/rules": generateValidators,
  // Settings with defaults and ranges, and constants.
  "ts/settings": generateSettings,
  // The error table.
  "ts/errors": generateErrors,
  // Reference pages.
  docs: generateDocs,
};

/**
 * What users can have made of protos of their own with the options of `hawser.spec.v1`: settings, rules, errors, and pages
 * about them. Tables and SQL functions are left out: theirs is the schema `hawser`, which belongs to Hawser.
 *
 * @param files those of the registry that it is made of
 * @throws SpecError for a mistake in the protos
 */
export function generateSpecParts(registry: FileRegistry, files: readonly DescFile[]): GeneratedFile[] {
  return runGenerators(partGenerators, readSpec(registry, files));
}

export function runGenerators(generators: Generators, spec: Spec): GeneratedFile[] {
  return Object.entries(generators).flatMap(([folder, generate]) => inFolder(folder, generate(spec)));
}

export function inFolder(folder: string, files: readonly GeneratedFile[]): GeneratedFile[] {
  return files.map(({ path, content }) => ({ path: `${folder}/${path}`, content }));
}
