import type { DescFile, FileRegistry } from "@bufbuild/protobuf";
import { generateDocs } from "./docs/generate.js";
import { generateErrors } from "./errors/generate.js";
import { readSpec, type Spec } from "./model/spec.js";
import type { GeneratedFile, Generator } from "./plugin.js";
import { generateSettings } from "./settings/generate.js";
import { generateValidators } from "./validators/generate.js";

/** Generators by the folder below `generated/` that their files go to. */
export type Generators = Readonly<Record<string, Generator>>;

/** Generators that work on any spec, Hawser's or a user's. */
export const partGenerators: Generators = {
  // Checks of the rules, for frames and for columns.
  "ts/rules": generateValidators,
  // Settings with defaults and ranges, and constants.
  "ts/settings": generateSettings,
  // The error table.
  "ts/errors": generateErrors,
  // Reference pages.
  docs: generateDocs,
};

/**
 * Generates settings, rules, errors and their reference pages from a user's protos, by the options of `hawser.spec.v1`.
 * Tables and SQL functions are left out, because they live in the schema `hawser`, which belongs to Hawser.
 *
 * @param files the files of the registry to generate from
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
