import { isMadeWithTables } from "../model/gateway-functions.js";
import type { Spec, SpecFile } from "../model/spec.js";
import type { GeneratedFile } from "../plugin.js";
import { filesByArea, typescriptHead } from "../print.js";
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
  return filesByArea(spec).flatMap(([area, files]) => {
    const sources = files.filter((file) => file.tables.length + file.views.length + functionGroupsOf(file).length > 0);
    return sources.length === 0 ? [] : [{ path: `${area}.ts`, content: rowsModule(sources) }];
  });
}

/** Functions that are created with the tables. A function with payload types is included as its variant for bytes. */
function functionGroupsOf({ functionGroups, gatewayGroups }: SpecFile): FunctionGroup[] {
  const callable = gatewayGroups.flatMap(({ service, comment, families }) => {
    const functions = families.filter(isMadeWithTables).map(withBytes);
    return functions.length === 0 ? [] : [{ service, comment, functions }];
  });
  return [...functionGroups, ...callable];
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
    ...[...tables, ...views].map(rowInterface),
    ...(tables.length > 0 ? [tableNames(tables)] : []),
    ...(views.length > 0 ? [viewNames(views)] : []),
    ...(groups.length > 0 ? [queryClient] : []),
    ...clients,
    ...(usesOnlyRow ? [onlyRowHelper] : []),
    ...(usesBuffers ? [bufferHelper] : []),
  ].join("\n");
}
