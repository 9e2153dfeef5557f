"""Models and adapters across the border: ours in transformers and peft, theirs in Cordada.

    python tools/hf_roundtrip.py target/release/cordada

For every architecture: `cordada rlhf new` and `sft` make a model and an adapter, which transformers
and peft load; a random model of transformers', and an adapter of peft's, are saved and read by
Cordada. Perplexities of the same answers must agree to 1e-4, and every tensor's name, shape and
type is written to golden/llm/written.json, against which CI checks what Cordada writes.

Run it whenever a format changes. It needs torch, transformers, peft and safetensors.
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

ARCHITECTURES = {
    "gpt2": ["c_attn", "c_proj"],
    "llama": ["q_proj", "v_proj", "down_proj"],
    "qwen2": ["q_proj", "k_proj", "up_proj"],
    "qwen3": ["q_proj", "v_proj", "o_proj"],
}
ROWS = [
    ("sort 3 1 2 5 4 :", " 1 2 3 4 5"),
    ("sort 9 9 2 0 4 :", " 0 2 4 9 9"),
    ("sort 7 0 7 0 1 :", " 0 0 1 7 7"),
]
SIZE = "--hidden 64 --layers 2 --heads 4 --intermediate 96".split()

cordada = sys.argv[1]
home = pathlib.Path(tempfile.mkdtemp())
data = home / "answers.jsonl"
data.write_text("".join(json.dumps(dict(prompt=p, completion=c)) + "\n" for p, c in ROWS))
torch.set_num_threads(1)


def run(*args):
    out = subprocess.run([cordada, "rlhf", *map(str, args)], capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"cordada rlhf {' '.join(map(str, args))}\n{out.stderr}")
    return out.stdout


def ours(model):
    return json.loads(run("eval", model, "--data", data, "--json"))["perplexity"]


def theirs(model, tokenizer):
    total, count = 0.0, 0
    for prompt, completion in ROWS:
        p = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        c = tokenizer(completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([p + c])).logits[0].double()
        rows = torch.log_softmax(logits, -1)[len(p) - 1 : -1]
        total -= rows[range(len(c)), c].sum().item()
        count += len(c)
    return math.exp(total / count)


def agree(what, a, b):
    if not abs(a / b - 1) < 1e-4:
        sys.exit(f"{what}: {a} here, {b} there")
    print(f"{what}: {a:.6f} and {b:.6f}")


def tensors(path):
    with safe_open(path, "pt") as f:
        return {
            k: [str(f.get_slice(k).get_dtype()), list(f.get_slice(k).get_shape())] for k in sorted(f.keys())
        }


def checkpoint(run_dir):
    return next((run_dir / "checkpoints").glob("step-*"))


written = {}
for arch, targets in ARCHITECTURES.items():
    new, full, lora = (home / f"{arch}-{kind}" for kind in ("new", "full", "lora"))
    run("new", new, "--task", "sort", "--arch", arch, *SIZE, "--quiet")
    common = ("--task", "sort", "--steps", 5, "--set", "lr=3e-3", "--quiet")
    run("sft", new, *common, "--out", full)
    run("sft", new, *common, "--lora", f"r=4,alpha=8,targets={'+'.join(targets)}", "--out", lora)
    folder, adapter = checkpoint(full), checkpoint(lora)

    # AutoTokenizer of transformers 5 takes a class of its own for qwen2, which drops the white space
    # of a character-level tokenizer, whatever tokenizer_config.json says.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    agree(f"{arch}, ours in transformers", ours(full), theirs(model, tokenizer))
    base = AutoModelForCausalLM.from_pretrained(new, dtype=torch.float32)
    peft = PeftModel.from_pretrained(base, adapter).eval()
    agree(f"{arch}, our adapter in peft", ours(lora), theirs(peft, tokenizer))
    config = json.loads((folder / "config.json").read_text())
    written[arch] = dict(
        config=config,
        model=tensors(folder / "model.safetensors"),
        adapter_config=json.loads((adapter / "adapter_config.json").read_text()),
        adapter=tensors(adapter / "adapter_model.safetensors"),
    )
    written[arch]["adapter_config"].pop("base_model_name_or_path")

    torch.manual_seed(0)
    random = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    for p in random.parameters():
        p.data += 0.05 * torch.randn_like(p)
    back, back_adapter = home / f"{arch}-back", home / f"{arch}-back-adapter"
    random.save_pretrained(back)
    tokenizer.save_pretrained(back)
    agree(f"{arch}, theirs here", ours(back), theirs(random.eval(), tokenizer))
    tuned = get_peft_model(random, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
    for name, p in tuned.named_parameters():
        if "lora_" in name:
            p.data += 0.05 * torch.randn_like(p)
    tuned.save_pretrained(back_adapter)
    config = json.loads((back_adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(back)
    (back_adapter / "adapter_config.json").write_text(json.dumps(config))
    agree(f"{arch}, their adapter here", ours(back_adapter), theirs(tuned.eval(), tokenizer))

target = pathlib.Path(__file__).resolve().parent.parent / "golden/llm/written.json"
target.write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
print(f"wrote {target}")
