import type { DescField, DescFile, DescMessage, DescMethod, DescOneof, Message } from "@bufbuild/protobuf";
import { type AnyDesc, type FileRegistry, getOption, hasOption } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";

/** Package that declares the options of the spec. */
export const specPackage = "hawser.spec.v1";

/** Package that declares the rules of messages that are sent. */
const wirePackage = "buf.validate";

// The messages of options.proto as reflection returns them. Written by hand, because the plugins run on a clean tree,
// where nothing has been generated.

export interface TableOption {
  name: string;
  primaryKey: string[];
  unique: { columns: string[] }[];
  index: { name: string; columns: string[]; where: string }[];
  check: { name: string; expression: string }[];
  notify?: { channel: string; columns: string[] };
  grant: { role: string; privileges: string[]; columns: string[] }[];
  row: { values: string[] }[];
  segments?: { column: string; count: number };
  /** 0 for the default of Postgres. */
  fillfactor: number;
  shownTo: string[];
}

export interface ViewOption {
  name: string;
  queryFile: string;
  select: string[];
  table: string;
}

export interface ColumnOption {
  type: string;
  default: string;
  generated: string;
  uncompressed: boolean;
  source: string;
}

export interface RulesOption {
  min?: bigint;
  max?: bigint;
  minBytes?: bigint;
  maxBytes?: bigint;
  pattern: string;
  patternMeans: string;
  maxItems?: number;
  in: string[];
  required: boolean;
  /** Name of rules that are declared elsewhere and apply in addition. */
  named: string;
  maxTotalBytes?: bigint;
  maxItemBytes?: bigint;
  maxNameBytes?: number;
  maxValueBytes?: number;
}

export interface NamedRulesOption {
  name: string;
  about: string;
  rules?: RulesOption;
  /** Name in the table of limits; empty if the table omits it. */
  limit: string;
}

export interface SettingsOption {
  title: string;
  fixed: boolean;
}

export interface SettingOption {
  default: string;
  unit: string;
  /** Number of a `SettingPart`. */
  part: number;
  /** Name in the table of limits; empty if the table omits it. */
  limit: string;
}

export interface SqlFunctionOption {
  name: string;
  bodyFile: string;
  securityDefiner: boolean;
  execute: string[];
  returnsSet: boolean;
  settings: string[];
  optionalDefaults: boolean;
  readsOnly: boolean;
  constant: boolean;
  needsReadCommitted: boolean;
}

export interface GatewayFunctionOption {
  name: string;
  alias: string[];
  bodyFile: string;
  local: boolean;
  execute: string[];
  changes?: boolean;
  internal: boolean;
  invoker: boolean;
  method: string;
}

export interface GatewayValueOption {
  payload: boolean;
  payloadType: boolean;
  timeout: boolean;
  sqlType: string;
  messageContext: boolean;
  traceContext: boolean;
  clientName: string;
  clientOption: boolean;
}

export interface MetricOption {
  /** Number of a `MetricType`. */
  type: number;
  label: { name: string; value: string[] }[];
  unit: string;
  bucket: number[];
}

export interface ErrorOption {
  code: string;
  sqlstate: string;
  exitStatus: number;
  retryable: boolean;
  remedy: string;
  branchAfter: string;
}

/** Reads the spec's options from descriptors by reflection. */
export class SpecOptions {
  readonly #registry: FileRegistry;
  /** Named rules of all files, which fields refer to. */
  readonly namedRules: ReadonlyMap<string, NamedRulesOption & { readonly file: DescFile }>;

  constructor(registry: FileRegistry) {
    this.#registry = registry;
    const named = new Map<string, NamedRulesOption & { readonly file: DescFile }>();
    for (const file of registry.files) {
      for (const entry of this.#read<NamedRulesOption[]>(file, "named_rules") ?? []) {
        named.set(entry.name, { ...entry, file });
      }
    }
    this.namedRules = named;
  }

  table(message: DescMessage): TableOption | undefined {
    return this.#read<TableOption>(message, "table");
  }

  view(message: DescMessage): ViewOption | undefined {
    return this.#read<ViewOption>(message, "view");
  }

  settings(message: DescMessage): SettingsOption | undefined {
    return this.#read<SettingsOption>(message, "settings");
  }

  metrics(message: DescMessage): { title: string } | undefined {
    return this.#read<{ title: string }>(message, "metrics");
  }

  metric(field: DescField): MetricOption | undefined {
    return this.#read<MetricOption>(field, "metric");
  }

  column(field: DescField): ColumnOption | undefined {
    return this.#read<ColumnOption>(field, "column");
  }

  rules(field: DescField): RulesOption | undefined {
    return this.#read<RulesOption>(field, "rules");
  }

  setting(field: DescField): SettingOption | undefined {
    return this.#read<SettingOption>(field, "setting");
  }

  sqlFunction(method: DescMethod): SqlFunctionOption | undefined {
    return this.#read<SqlFunctionOption>(method, "sql_function");
  }

  gatewayFunction(method: DescMethod): GatewayFunctionOption | undefined {
    return this.#read<GatewayFunctionOption>(method, "gateway_function");
  }

  /** All false or empty for a field without the option. */
  gatewayValue(field: DescField): GatewayValueOption {
    return getOption(field, this.#registry.getExtension(`${specPackage}.gateway_value`)!) as GatewayValueOption;
  }

  errors(file: DescFile): readonly ErrorOption[] {
    return this.#read<ErrorOption[]>(file, "error") ?? [];
  }

  /** Rules of a field of a message that is sent: a `buf.validate.FieldRules`. */
  wireRules(field: DescField): ReflectMessage | undefined {
    const extension = this.#registry.getExtension(`${wirePackage}.field`);
    return extension !== undefined && hasOption(field, extension)
      ? reflect(extension.message!, getOption(field, extension) as Message)
      : undefined;
  }

  /** Rules between the fields of a message that is sent: a `buf.validate.MessageRules`. */
  messageRules(message: DescMessage): { cel: { message: string }[]; oneof: unknown[] } | undefined {
    return this.#read<{ cel: { message: string }[]; oneof: unknown[] }>(message, "message", wirePackage);
  }

  /** True if one field of a oneof of a message that is sent must be set. */
  isRequired(oneof: DescOneof): boolean {
    return this.#read<{ required: boolean }>(oneof, "oneof", wirePackage)?.required ?? false;
  }

  #read<T>(desc: Exclude<AnyDesc, { kind: "extension" }>, name: string, from = specPackage): T | undefined {
    // The registry lacks the extension if no file of the request uses the options.
    const extension = this.#registry.getExtension(`${from}.${name}`);
    return extension !== undefined && hasOption(desc, extension) ? (getOption(desc, extension) as T) : undefined;
  }
}
