import { isMadeWithTables } from "../model/gateway-functions.js";
import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { fileOfEachArea, typescriptHead } from "../print.js";
import {
  bufferHelper,
  type FunctionGroup,
  functionClient,
  onlyRowHelper,
  queryClient,
  withBytes,
} from "./functions.js";
import { rowInterface, tableNames, viewNames } from "./tables.js";

/**
 * Generates `<area>.ts` for each package with tables or functions: row types, names, and a typed client of the
 * functions.
 */
export function generateRows(spec: Spec): GeneratedFile[] {
  return fileOfEachArea(
    spec,
    (file) => file.tables.length + file.views.length + functionGroupsOf(file).length > 0,
    rowsModule,
  );
}

/**
 * Functions of the schema `hawser` that a role may execute: the others are called by SQL alone. A function with payload
 * types is included as its variant for bytes.
 */
function functionGroupsOf({ functionGroups, gatewayGroups }: SpecFile): FunctionGroup[] {
  const groups = [
    ...functionGroups.map((group) => ({
      ...group,
      functions: group.functions.filter(({ execute }) => execute.length > 0),
    })),
    ...gatewayGroups.map((group) => ({ ...group, functions: group.families.filter(isMadeWithTables).map(withBytes) })),
  ];
  return groups.filter(({ functions }) => functions.length > 0);
}

function rowsModule(sources: readonly SpecFile[]): string {
  const tables = sources.flatMap((file) => file.tables);
  const views = sources.flatMap((file) => file.views);
  const groups = sources.flatMap(functionGroupsOf);
  const clients = groups.map(functionClient);
  const usesBuffers = clients.some((client) => client.includes("toBuffer("));
  const usesOnlyRow = clients.some((client) => client.includes("onlyRow("));
  return [
    typescriptHead("codegen/rows", sources),
    ...[...tables, ...views.filter(({ message }) => !tables.some((table) => table.message === message))].map(
      rowInterface,
    ),
    ...(tables.length > 0 ? [tableNames(tables)] : []),
    ...(views.length > 0 ? [viewNames(views)] : []),
    ...(groups.length > 0 ? [queryClient] : []),
    ...clients,
    ...(usesOnlyRow ? [onlyRowHelper] : []),
    ...(usesBuffers ? [bufferHelper] : []),
  ].join("\n");
}
