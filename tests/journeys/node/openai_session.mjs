// The session of openai-node.
import OpenAI from "openai";
import { serve, weatherAs } from "./steps.mjs";

const open = ({ url, key, retries }) => new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: retries });
const asked = ({ model, prompt, limit }) => ({
  model,
  max_tokens: limit,
  messages: [{ role: "user", content: prompt }],
});
const streamed = (given) => ({ ...asked(given), stream: true, stream_options: { include_usage: true } });

async function chat(given) {
  const answer = await open(given).chat.completions.create(asked(given));
  const { usage, model, _request_id } = answer;
  return [answer.choices[0].message.content, model, usage.prompt_tokens, usage.completion_tokens, 1, _request_id];
}

async function stream(given) {
  let [text, pieces, usage] = ["", 0, null];
  const models = new Set();
  for await (const chunk of await open(given).chat.completions.create(streamed(given))) {
    const piece = chunk.choices[0]?.delta?.content;
    text += piece ?? "";
    pieces += piece ? 1 : 0;
    models.add(chunk.model);
    usage = chunk.usage ?? usage;
  }
  return [text, [...models].join(), usage.prompt_tokens, usage.completion_tokens, pieces];
}

async function tool(given) {
  const { result, ...told } = given.tool;
  const runner = open(given).chat.completions.runTools({
    ...asked(given),
    stream: given.stream,
    tools: [{ type: "function", function: { ...told, parse: JSON.parse, function: weatherAs(result) } }],
  });
  return await runner.finalContent();
}

async function embed(given) {
  const answer = await open(given).embeddings.create({ model: given.model, input: given.text });
  return answer.data[0].embedding;
}

async function leave(given) {
  for await (const chunk of await open(given).chat.completions.create(streamed(given))) {
    if (chunk.choices[0]?.delta?.content) return true;
  }
  return false;
}

await serve({ chat, stream, tool, embed, leave }, (error) =>
  error instanceof OpenAI.APIError
    ? { kind: error.constructor.name, status: error.status ?? null, code: error.code ?? null }
    : null,
);
