/**
 * Mistakes in a spec, each with what the plugins say of it. `proto` is what follows the imports; the package is of the
 * case's own.
 */
export interface RefusalCase {
  /** As a sentence: "refuses …". */
  readonly name: string;
  readonly proto: string;
  /** Text behind the file's name and a colon. */
  readonly says: string;
}

/** Details of an error without a mistake. */
export function goodError(code: string): string {
  return `option (hawser.spec.v1.error) = {code: "${code}" sqlstate: "55000" exit_status: 70 remedy: "y"};`;
}

/** A table `foo` with these fields. */
export function table(fields: string, option = 'primary_key: "id"'): string {
  return `message Foo { option (hawser.spec.v1.table) = {name: "foo" ${option}}; ${fields} }`;
}

/** An SQL function with these parameters and results. */
export function fn(request: string, response: string, option = 'body_file: "a.sql"'): string {
  return `service FooService {
    rpc Foo(FooRequest) returns (FooResponse) { option (hawser.spec.v1.sql_function) = {name: "foo" ${option}}; }
  }
  message FooRequest { ${request} }
  message FooResponse { ${response} }`;
}

/** An SQL function that the gateway answers, with these parameters and results. */
export function gatewayFn(
  request: string,
  response: string,
  option = 'name: "foo"',
  changes = "changes: false",
): string {
  const method = /\b(internal|execute|method):/.test(option) ? "" : 'method: "foo"';
  return `import "google/protobuf/struct.proto";
  service FooService {
    rpc Foo(FooRequest) returns (FooResponse) { option (hawser.spec.v1.gateway_function) = {${option} ${method} ${changes}}; }
  }
  message FooRequest { ${request} }
  message FooResponse { ${response} }`;
}

/** Option of a field of a gateway function. */
export function gatewayValue(option: string): string {
  return `[(hawser.spec.v1.gateway_value) = {${option}}]`;
}

/** A column with rules. */
export function ruled(field: string, rules: string): string {
  return table(`int32 id = 1; ${field} [(hawser.spec.v1.rules) = {${rules}}];`);
}

/** A field of a message that is sent, with an option of `buf.validate`. */
export function wired(field: string, option: string): string {
  return `message Foo { ${field} [${option}]; }`;
}

/** A setting with its option and rules. */
export function setting(field: string, option: string, rules = ""): string {
  const rulesOption = rules === "" ? "" : `, (hawser.spec.v1.rules) = {${rules}}`;
  return `message Foo { option (hawser.spec.v1.settings) = {title: "Foo"}; ${field} [(hawser.spec.v1.setting) = {${option}}${rulesOption}]; }`;
}

/** A metric with its help and its option. */
export function metric(field: string, option: string, help = "Help."): string {
  const comment = help === "" ? "" : `\n// ${help}\n`;
  return `message Foo { option (hawser.spec.v1.metrics) = {title: "Foo"}; ${comment} ${field} [(hawser.spec.v1.metric) = {${option}}]; }`;
}

/** An enum of one error, with its details. */
export function error(option: string): string {
  return `option (hawser.spec.v1.error) = {code: "lost" ${option}};
    enum FooError { FOO_ERROR_UNSPECIFIED = 0;
      // It is lost.
      FOO_ERROR_LOST = 1; }`;
}
