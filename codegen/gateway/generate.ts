import { type GatewayGroup, isMadeWithTables } from "../model/gateway-functions.js";
import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { docstring, stringLiteral, templateLiteral, typescriptHead } from "../print.js";
import { sourceText } from "../source-text.js";
import { clientModule } from "./client.js";
import { methodsModule } from "./methods.js";
import { referencePage } from "./reference.js";
import { gatewaySql } from "./sql.js";

const runtimeFile = "codegen/gateway/runtime/argument.ts";

/** Files that declare functions of the gateway, and all files of the spec, whose constants the bodies name. */
interface Sources {
  readonly files: readonly SpecFile[];
  readonly groups: readonly GatewayGroup[];
  readonly all: readonly SpecFile[];
}

function sourcesOf(spec: Spec): Sources {
  const files = spec.files.filter(({ gatewayGroups }) =>
    gatewayGroups.some(({ families }) => !families.every(isMadeWithTables)),
  );
  return { all: spec.files, files, groups: files.flatMap((file) => file.gatewayGroups) };
}

/** Generates the functions in TypeScript: `methods.ts`, `client.ts`, `sql.ts`, `argument.ts`. */
export function generateGatewayTypescript(spec: Spec): GeneratedFile[] {
  const sources = sourcesOf(spec);
  const runtime = sourceText("gateway/runtime/argument.ts");
  return [
    { path: "argument.ts", content: `${typescriptHead("codegen/gateway", [runtimeFile])}\n${runtime}` },
    { path: "methods.ts", content: methodsModule(sources.files, sources.groups) },
    { path: "client.ts", content: clientModule(sources.files, sources.groups) },
    { path: "sql.ts", content: sqlModule(sources) },
  ];
}

/** Generates `nats-functions.md`. */
export function generateGatewayDocs(spec: Spec): GeneratedFile[] {
  const { files, groups } = sourcesOf(spec);
  return [{ path: "nats-functions.md", content: referencePage(files, groups) }];
}

function sqlOf({ all, groups }: Sources) {
  return gatewaySql(
    all,
    groups.flatMap(({ families }) => families),
  );
}

function sqlModule(sources: Sources): string {
  const { before, functions, after, grants } = sqlOf(sources);
  const entries = functions.map(({ statement, ...facts }) => {
    const texts = Object.entries(facts).map(([name, text]) => `    ${name}: ${stringLiteral(text)},\n`);
    return `  {\n${texts.join("")}    statement: ${templateLiteral(statement)},\n  },\n`;
  });
  const all = `[\n  ${templateLiteral(before)},\n  ...natsFunctions.map(({ statement }) => statement),\n  ${templateLiteral(after)},\n].join("\\n")`;
  return [
    typescriptHead("codegen/gateway", sources.files),
    functionInterface,
    `${docstring("All functions, with the placeholders of {@link natsFunctionsSql}.")}export const natsFunctions: readonly NatsFunction[] = [\n${entries.join("")}];\n`,
    `${docstring("Creates or replaces the functions. `@extschema@` is their schema, `@dblink@` the schema of dblink.")}export const natsFunctionsSql = ${all};\n`,
    `${docstring("Revokes the functions from PUBLIC and grants them to hawser_nats.")}export const natsFunctionsGrantsSql = ${templateLiteral(grants)};\n`,
  ].join("\n");
}

const functionInterface = `/** SQL function, as the catalogs of Postgres describe it. */
export interface NatsFunction {
  /** \`hawser\` for a function that the others call; else \`@extschema@\`. */
  readonly schema: string;
  readonly name: string;
  /** Types of the parameters, as \`format_type\` prints them. */
  readonly types: string;
  /** Parameters, as \`pg_get_function_arguments\` prints them. */
  readonly arguments: string;
  /** Result, as \`pg_get_function_result\` prints it. */
  readonly result: string;
  /** CREATE FUNCTION and its comment. */
  readonly statement: string;
}
`;
