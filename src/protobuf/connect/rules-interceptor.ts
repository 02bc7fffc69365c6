/**
 * Interceptor that checks the rules of `buf.validate`. It depends only on Connect's interceptor interface, so that it
 * also works in transports and routers for HTTP, including streaming methods.
 */
import type { DescMessage, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import {
  checkOptionNames,
  errorMessageOf,
  HawserError,
  invalidArgument,
  namesOf,
} from "../../foundation/errors/index.js";
import { brokenRule, violationText } from "../typed/index.js";

/** Message validator, such as the one of `@bufbuild/protovalidate`. */
interface MessageValidator {
  validate<Desc extends DescMessage>(
    schema: Desc,
    message: MessageShape<Desc>,
  ): { readonly kind: "valid" | "invalid" | "error"; readonly error?: Error | undefined };
}

/** Options of {@link createRulesInterceptor}. */
interface RulesInterceptorOptions {
  /**
   * Validator to use in place of Hawser's own, for schemas with rules that Hawser does not support, such as CEL.
   * Example: `createValidator()` of `@bufbuild/protovalidate`.
   */
  readonly validator?: MessageValidator | undefined;
}

const optionNames = namesOf<RulesInterceptorOptions>({ validator: true });

/**
 * Creates an interceptor for transports and services that checks the rules of `buf.validate` in requests and answers.
 *
 * A request that breaks a rule fails with `invalid_argument`: a transport does not send it, and a service does not call
 * the handler. An answer that breaks a rule fails with `internal`. Both errors name the field, its value and the rule.
 * If a schema has an unsupported rule, its calls fail with `internal`, and the error names the rule. Each message of a
 * stream is checked.
 *
 * @throws HawserError `invalid_argument` for an unknown option, or a validator without the method `validate`
 */
export function createRulesInterceptor(options: RulesInterceptorOptions = {}): Interceptor {
  checkOptionNames(options, "a rules interceptor", optionNames);
  const problemOf = options.validator === undefined ? ownProblem : problemBy(options.validator);
  const check = (schema: DescMessage, message: MessageShape<DescMessage>, what: "request" | "answer"): void => {
    const problem = problemOf(schema, message);
    if (problem === undefined) return;
    if (problem.kind === "error") {
      const text = `the rules of ${schema.typeName} cannot be checked: ${problem.text}`;
      throw new ConnectError(text, Code.Internal, undefined, undefined, problem.cause);
    }
    if (what === "request") throw new ConnectError(problem.text, Code.InvalidArgument);
    // The cause reaches the logger of a service; callers do not see it.
    const cause = new HawserError("invalid_message", problem.text);
    throw new ConnectError(`the answer breaks a rule: ${problem.text}`, Code.Internal, undefined, undefined, cause);
  };
  return (next) => async (request) => {
    const { input, output } = request.method;
    if (!request.stream) check(input, request.message, "request");
    const response = await next(
      request.stream
        ? { ...request, message: eachChecked(request.message, (message) => check(input, message, "request")) }
        : request,
    );
    if (response.stream) {
      return { ...response, message: eachChecked(response.message, (message) => check(output, message, "answer")) };
    }
    check(output, response.message, "answer");
    return response;
  };
}

interface Problem {
  /** `broken`: the message breaks a rule; `error`: the rules cannot be checked. */
  readonly kind: "broken" | "error";
  readonly text: string;
  readonly cause?: unknown;
}

type ProblemOf = (schema: DescMessage, message: MessageShape<DescMessage>) => Problem | undefined;

const ownProblem: ProblemOf = (schema, message) => {
  try {
    const broken = brokenRule(schema, message as unknown as Readonly<Record<string, unknown>>);
    return broken === undefined ? undefined : { kind: "broken", text: violationText(schema, broken) };
  } catch (cause) {
    const reason = errorMessageOf(cause);
    const isUnsupported = cause instanceof HawserError && cause.code === "invalid_schema";
    const remedy = isUnsupported
      ? ". Remove the rule, or give the interceptor a validator of @bufbuild/protovalidate"
      : "";
    return { kind: "error", text: `${reason}${remedy}`, cause };
  }
};

function problemBy(validator: MessageValidator): ProblemOf {
  if (typeof (validator as Partial<MessageValidator> | null)?.validate !== "function") {
    const text = "validator: must have a method validate. Example: createValidator() of @bufbuild/protovalidate";
    throw invalidArgument(text);
  }
  return (schema, message) => {
    const { kind, error } = validator.validate(schema, message);
    if (kind === "valid") return undefined;
    const text = error?.message ?? "the validator gave no reason";
    return kind === "invalid"
      ? { kind: "broken", text: `${schema.typeName}: ${text}` }
      : { kind: "error", text, cause: error };
  };
}

async function* eachChecked<Message>(messages: AsyncIterable<Message>, check: (message: Message) => void) {
  for await (const message of messages) {
    check(message);
    yield message;
  }
}
