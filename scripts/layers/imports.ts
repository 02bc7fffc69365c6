import { parseSync } from "oxc-parser";

/** Import of a source file. */
export interface SourceImport {
  /** Module specifier as written. */
  readonly specifier: string;
  /** Line, counted from 1. */
  readonly line: number;
}

/**
 * Lists the imports of a TypeScript file: import and export statements, including those of types, and `import("…")`
 * with a literal. Throws if the file has a syntax error.
 */
export function importsOf(path: string, source: string): SourceImport[] {
  const { module, errors } = parseSync(path, source);
  if (errors[0] !== undefined) throw new Error(`${path}: ${errors[0].message}`);
  const found = [
    ...module.staticImports.map(({ moduleRequest: { value, start } }) => ({ specifier: value, start })),
    ...module.staticExports.flatMap(({ entries }) =>
      entries.flatMap(({ moduleRequest: from }) => (from ? [{ specifier: from.value, start: from.start }] : [])),
    ),
    ...module.dynamicImports.flatMap(({ moduleRequest: { start, end } }) => {
      const literal = /^(["'`])([^$]*)\1$/.exec(source.slice(start, end));
      return literal === null ? [] : [{ specifier: literal[2]!, start }];
    }),
  ];
  const unique = new Map(found.map((each) => [each.start, each]));
  return [...unique.values()]
    .sort((a, b) => a.start - b.start)
    .map(({ specifier, start }) => ({ specifier, line: source.slice(0, start).split("\n").length }));
}
