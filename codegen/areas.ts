import { areaOf } from "./model/names.js";
import type { Spec, SpecFile } from "./model/spec.js";

/** The file says something in SQL: tables, functions or errors. */
export function hasSql(file: SpecFile): boolean {
  return file.tables.length + file.functionGroups.length + file.errorTables.length > 0;
}

/** The files of the spec by what their package is about (`peer` for `hawser.peer.v1`), sorted. */
export function filesByArea(spec: Spec): [area: string, files: SpecFile[]][] {
  const areas = new Map<string, SpecFile[]>();
  for (const file of spec.files) {
    const area = areaOf(file.file.proto.package);
    areas.set(area, [...(areas.get(area) ?? []), file]);
  }
  return [...areas].sort(([one], [other]) => (one < other ? -1 : 1));
}
