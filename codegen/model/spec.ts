import type { DescEnum, DescFile, DescMessage, FileRegistry } from "@bufbuild/protobuf";
import { TakenNames } from "./duplicates.js";
import { type ErrorTable, readErrorTables } from "./errors.js";
import { type FunctionGroup, readFunctionGroup } from "./functions.js";
import { distinctNames, type GatewayGroup, readGatewayGroup } from "./gateway-functions.js";
import { type Message, readMessage } from "./messages.js";
import { type MetricGroup, readMetricGroup } from "./metrics.js";
import { SpecOptions, specPackage } from "./options.js";
import { type NamedRules, readNamedRules } from "./rules.js";
import { readSettingGroup, type SettingGroup } from "./settings.js";
import { SpecError } from "./spec-error.js";
import { readTable, relationsOf, type Table } from "./tables.js";
import { readView, type View, viewOfTable } from "./views.js";

/** Content of the spec, checked. */
export interface Spec {
  /** Files in the order of the request; buf sorts them by path. */
  readonly files: readonly SpecFile[];
  /** Named rules of all files. */
  readonly namedRules: readonly NamedRules[];
}

/** Declarations of one proto file, in their order. */
export interface SpecFile {
  readonly file: DescFile;
  readonly tables: readonly Table[];
  readonly views: readonly View[];
  readonly functionGroups: readonly FunctionGroup[];
  readonly gatewayGroups: readonly GatewayGroup[];
  readonly settingGroups: readonly SettingGroup[];
  readonly metricGroups: readonly MetricGroup[];
  readonly errorTables: readonly ErrorTable[];
  readonly messages: readonly Message[];
}

/**
 * Reads the files of the spec, except the file that declares the options.
 *
 * @throws SpecError at the first mistake.
 */
export function readSpec(registry: FileRegistry, files: readonly DescFile[]): Spec {
  const options = new SpecOptions(registry);
  const spec = {
    files: files
      .filter((file) => file.proto.package !== specPackage)
      .map((file) => readFile(file, options, functionMessages(files, options), enumsOf(registry, file.proto.package))),
    namedRules: readNamedRules(options),
  };
  refuseSharedNames(spec);
  return spec;
}

/**
 * @param passing names of the requests and responses of SQL functions
 * @param enums all enums of the file's package
 */
function readFile(
  file: DescFile,
  options: SpecOptions,
  passing: ReadonlySet<string>,
  enums: readonly DescEnum[],
): SpecFile {
  const tables: Table[] = [];
  const views: View[] = [];
  const settingGroups: SettingGroup[] = [];
  const metricGroups: MetricGroup[] = [];
  const messages: Message[] = [];
  for (const message of allMessages(file.messages)) {
    const table = options.table(message);
    const view = options.view(message);
    const settings = options.settings(message);
    const metrics = options.metrics(message);
    if ([table, view, settings, metrics].filter((option) => option !== undefined).length > 1) {
      throw new SpecError(message, "a message is either a table, a view, a group of settings or a group of metrics");
    }
    if (table !== undefined) {
      tables.push(readTable(message, table, options));
    } else if (view !== undefined) {
      views.push(readView(message, view, options, tables));
    } else if (settings !== undefined) {
      settingGroups.push(readSettingGroup(message, settings, options));
    } else if (metrics !== undefined) {
      metricGroups.push(readMetricGroup(message, metrics, options));
    } else if (!passing.has(message.typeName)) {
      messages.push(readMessage(message, options));
    }
  }
  return {
    file,
    tables,
    views: [...tables.flatMap((table) => viewOfTable(table) ?? []), ...views],
    settingGroups,
    metricGroups,
    messages,
    functionGroups: file.services.flatMap((service) => readFunctionGroup(service, options) ?? []),
    gatewayGroups: file.services.flatMap((service) => readGatewayGroup(service, options) ?? []),
    errorTables: readErrorTables(file, enums, options),
  };
}

/** Lists messages depth first: nested messages follow their parent. Map entries are left out. */
function allMessages(messages: readonly DescMessage[]): DescMessage[] {
  return messages.flatMap((message) =>
    message.proto.options?.mapEntry ? [] : [message, ...allMessages(message.nestedMessages)],
  );
}

/** Lists the enums of a package; the top-level enums of a file come first. */
function enumsOf(registry: FileRegistry, name: string): DescEnum[] {
  return [...registry.files]
    .filter((file) => file.proto.package === name)
    .flatMap((file) => [...file.enums, ...allMessages(file.messages).flatMap((message) => message.nestedEnums)]);
}

/**
 * Names of the requests and responses of SQL functions. These messages are lists of parameters and columns, and are
 * never sent.
 */
function functionMessages(files: readonly DescFile[], options: SpecOptions): Set<string> {
  const methods = files.flatMap((file) => file.services.flatMap((service) => service.methods));
  const functions = methods.filter(
    (method) => options.sqlFunction(method) !== undefined || options.gatewayFunction(method) !== undefined,
  );
  return new Set(functions.flatMap((method) => [method.input.typeName, method.output.typeName]));
}

/**
 * Refuses names of SQL that occur twice, since the second function or view would replace the first. Tables and indexes
 * share one namespace; functions and views have one each.
 */
function refuseSharedNames(spec: Spec): void {
  const relations = new TakenNames("name");
  const views = new TakenNames("name");
  const functions = new TakenNames("function");
  for (const file of spec.files) {
    for (const table of file.tables) {
      for (const name of relationsOf(table)) {
        relations.take(name, table.message);
      }
      for (const index of table.indexes) {
        relations.take(index.name, table.message);
      }
    }
    for (const view of file.views) {
      views.take(view.name, view.message);
    }
    for (const { name, method } of file.functionGroups.flatMap((group) => group.functions)) {
      functions.take(name, method);
    }
    for (const family of file.gatewayGroups.flatMap((group) => group.families)) {
      for (const name of distinctNames(family)) functions.take(name, family.method);
    }
  }
}
