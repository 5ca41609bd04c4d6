// The session of the AI SDK with its provider for OpenAI-compatible servers.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, RetryError, embed as embedText, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { serve, weatherAs } from "./steps.mjs";

const open = ({ url, key }) =>
  createOpenAICompatible({ name: "modelport", baseURL: `${url}/v1`, apiKey: key, includeUsage: true });
const asked = (given) => ({
  model: open(given)(given.model),
  prompt: given.prompt,
  maxOutputTokens: given.limit,
  maxRetries: given.retries,
});

async function chat(given) {
  const { text, response, usage } = await generateText(asked(given));
  return [text, response.modelId, usage.inputTokens, usage.outputTokens];
}

async function stream(given) {
  const result = streamText({ ...asked(given), onError: () => {} });
  let [text, pieces] = ["", 0];
  for await (const part of result.fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type !== "text-delta") continue;
    text += part.text;
    pieces += 1;
  }
  const [response, usage] = [await result.response, await result.usage];
  return [text, response.modelId, usage.inputTokens, usage.outputTokens, pieces];
}

async function useTool(given) {
  const { name, description, parameters, result } = given.tool;
  const offered = tool({ description, inputSchema: jsonSchema(parameters), execute: weatherAs(result) });
  const request = { ...asked(given), tools: { [name]: offered }, stopWhen: stepCountIs(2) };
  return await (given.stream ? streamText(request) : await generateText(request)).text;
}

async function embed(given) {
  const model = open(given).textEmbeddingModel(given.model);
  return (await embedText({ model, value: given.text, maxRetries: given.retries })).embedding;
}

async function leave(given) {
  const leaving = new AbortController();
  const result = streamText({ ...asked(given), abortSignal: leaving.signal });
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") leaving.abort();
    if (part.type === "abort") return true;
  }
  return false;
}

await serve({ chat, stream, tool: useTool, embed, leave }, (error) => {
  const last = RetryError.isInstance(error) ? error.lastError : error;
  if (APICallError.isInstance(last))
    return { kind: last.name, status: last.statusCode ?? null, code: last.data?.error?.code ?? null };
  // Within a stream it hands on the error object of the event.
  return last instanceof Error ? null : { kind: last.type, status: null, code: last.code };
});
