"""Pairs of questions: those that must never share an answer, and those that must.

The first are made from templates, in which exactly one thing differs, and from real questions, in which one word is
replaced. The second are ways to type one and the same question.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple


class Pair(NamedTuple):
    kind: str
    one: str
    other: str


def _all(kind: str, templates: Sequence[str], groups: Sequence[Sequence[str]]) -> Iterator[Pair]:
    """Fill each template with every two words of each group."""
    for template, group in itertools.product(templates, groups):
        for one, other in itertools.combinations(group, 2):
            yield Pair(kind, template.format(one), template.format(other))


def must_refuse() -> list[Pair]:
    """Return the pairs of the templates."""
    return [
        *_all(
            "number", ("How do I set {} workers?", "如何设置{}个工作进程？"), (("2", "4", "12", "1.2", "1/2", "20"),)
        ),
        *_all("year", ("Who won the cup in {}?", "{}年谁赢得了奖杯？"), (("1990", "1991", "1909", "2019", "1890s"),)),
        *_all(
            "version",
            ("Is Python {} supported?", "支持Python {}吗？", "What is new in v{}?"),
            (("3.1", "3.11", "3.1.1", "31.1", "3.12", "3.11-rc1"),),
        ),
        *_all("sign", ("Is {} degrees cold?", "{}度冷吗？"), (("5", "-5", "5!", "5%", "+5"),)),
        *_all("power", ("How much is {} metres?", "{}米是多少？"), (("102", "10²", "10₂", "½2", "12"),)),
        *_all(
            "unit",
            ("How tall is it in {}?", "What is the limit in {}?"),
            (("metres", "feet", "inches", "miles"), ("MB", "GB", "MiB", "Mb/s"), ("5'", '5"', "5 m", "5 mm")),
        ),
        *_all(
            "unit",
            ("一共有多少{}？",),
            (("米", "厘米", "英尺", "公里"), ("元", "美元", "欧元"), ("分钟", "小时", "秒")),
        ),
        *_all("currency", ("What does {}100 buy?",), (("$", "€", "£", "¥"),)),
        *_all(
            "symbol", ("What is {} used for?", "{}语言有什么用？"), (("C", "C++", "C#", "c--", "C*"), (".NET", "NET."))
        ),
        *_all(
            "entity",
            ("Who is the president of {}?", "What is the population of {}?", "Is {} in Europe?"),
            (("France", "Germany", "New York", "York", "Niger", "Nigeria", "Austria", "Australia"),),
        ),
        *_all(
            "entity",
            ("{}的首都是哪里？", "{}有多少人口？"),
            (("法国", "德国", "中国", "奥地利", "澳大利亚", "几内亚", "几内亚比绍"),),
        ),
        *_all("label", ("Is {} dangerous?",), (("hepatitis", "hepatitis A", "hepatitis B", "the hepatitis"),)),
        *_all(
            "question word",
            ("{} was the bridge built?", "{} did she write the book?"),
            (("When", "Where", "Why", "How", "By whom", "For whom", "Until when", "Since when"),),
        ),
        *_all("question word", ("这座桥是{}建的？",), (("什么时候", "在哪里", "为什么", "怎么", "谁", "给谁"),)),
        *_all("how", ("How {} is the river?",), (("long", "deep", "old", "wide", "far"),)),
        *_all("polarity", ("{} the server support TLS?",), (("Does", "Doesn't", "Did", "Will", "Won't", "Why does"),)),
        *_all(
            "polarity",
            ("Which drugs are {} for children?", "Is it {} to restart?"),
            (("safe", "not safe", "never safe", "unsafe", "always safe", "hardly safe"),),
        ),
        *_all("polarity", ("Can I run it {} Redis?",), (("with", "without", "on", "before", "beside"),)),
        *_all("polarity", ("哪些药{}给儿童用？",), (("能", "不能", "可以", "不可以", "没", "未", "無", "不"),)),
        *_all("polarity", ("他{}毕业", "这台机器{}连接网络吗"), (("已经", "没有", "还没", "未", "无", "不"),)),
        *_all(
            "time",
            ("What happened {} the war?", "Who ruled {} 1900?"),
            (("before", "after", "during", "since", "until", "by", "in"),),
        ),
        *_all("time", ("战争{}发生了什么？",), (("之前", "之后", "期间", "结束时"),)),
        *_all("tense", ("Who {} the chancellor?",), (("is", "was", "will be", "has been", "would be"),)),
        *_all("tense", ("他{}上海？",), (("去了", "去过", "要去", "去"),)),
        *_all(
            "extreme",
            ("Which is the {} one?", "What was the {} result?"),
            (
                ("first", "last", "second", "next"),
                ("largest", "smallest", "larger"),
                ("most", "least", "best", "worst"),
            ),
        ),
        *_all("extreme", ("哪个是{}的？",), (("最大", "最小", "最多", "最少", "第一", "最后"),)),
        *_all("direction", ("Flights {} Paris", "How do I log {}?"), (("to", "from", "over", "in", "out", "on"),)),
        *_all("modal", ("What {} a tenant do?",), (("can", "must", "should", "may", "cannot", "must not"),)),
        *_all(
            "scope",
            ("Did {} of them pass?", "{}学生通过了吗？"),
            (("all", "some", "none", "both", "most", "not all", "所有", "有些", "没有"),),
        ),
        *_swapped(),
        *(Pair("word form", f"What is the {one}?", f"What is the {other}?") for one, other in _STEMS),
        *(Pair("manners", one, other) for one, other in _MANNERS),
        *(Pair("stop word", one, other) for one, other in _STOP_WORDS),
        *(Pair("place", one, other) for one, other in _PLACES),
        *_all(
            "mark",
            ("What does {} mean?", 'How do I type "{}"?', "“{}”有什么用"),
            (("?", "!", ";", ",", "-", "--", "?.", "."),),
        ),
        *_all("mark", ("What is the type of {}?",), (("{}", "[]", "()"), ("a[0]", "a(0)"), ("'", '"'))),
        *_all("mark", ("What does {} do in Ruby?", "{}在Ruby里做什么"), (("save", "save!", "save?", "save="),)),
    ]


# Each two have one stem.
_STEMS = (
    ("universe", "university"), ("author", "authority"), ("internal", "international"), ("organ", "organization"),
    ("import", "importance"), ("operation", "operator"), ("experiment", "experience"), ("generic", "generous"),
    ("policy", "policies"), ("leader", "leaders"), ("animal", "animation"), ("marketing", "market"),
    ("relative", "relativity"), ("community", "communism"), ("past", "paste"), ("station", "state"),
)  # fmt: skip
_MANNERS = (
    ("How do you say please?", "How do you say thank you?"),
    ("How do you say please?", "How do you say?"),
    ("Who made Hello Kitty?", "Who made Kitty?"),
    ("Hello Kitty maker", "Kitty maker"),
    ("Please Please Me release date", "Me release date"),
    ("Who sang Tell Me Why?", "Who sang Why?"),
    ("谢谢用英语怎么说", "用英语怎么说"),
    ("北京最好的酒吧", "北京最好的酒"),
    ("什么是羊毛呢", "什么是羊毛"),
    ("这个孩子是谁的", "这个孩子是谁"),
    ("他干吗", "他干"),
    ("So What album", "What album"),
    ("Do you know English?", "English?"),
    ("有什么吗", "有什么"),
    ("谁来了吗", "谁来了"),
    ("他睡觉呢", "他睡觉吗"),
    ("请问谁来了吗", "请问谁来了"),
)
_STOP_WORDS = (
    ("What is the time?", "What is time?"),
    ("What is the matter?", "What is matter?"),
    ("Who are The Who?", "Who are who?"),
    ("Where did The Office start?", "Where did Office start?"),
    ("What is vitamin A?", "What is vitamin?"),
    ("Who is it for?", "Who is it?"),
    ("What is it about?", "What is it?"),
    ("How few people came?", "How people came?"),
    ("他爱的人是谁", "他爱人是谁"),
    ("他死了吗", "他死吗"),
    ("他是不是老师", "他是老师"),
    ("中国、农业银行", "中国农业银行"),
)


# One word, in two places.
_PLACES = (
    ("Which users can delete files they create?", "Which users delete files they can create?"),
    ("Tell me which users can delete files they create", "Tell me which users delete files they can create"),
    ("Tell me what the people are told", "What the people told are"),
    ("Can birds that fly swim?", "Birds that can fly swim?"),
    ("Why do cats not swim?", "Why do not cats swim?"),
    ("Who only eats fish?", "Who eats only fish?"),
    ("아버지가 방에 들어가신다", "아버지 가방에 들어가신다"),
    ("不都是谁的", "都不是谁的"),
)


def _swapped() -> Iterator[Pair]:
    """Who does it to whom: the same words, and for an average of words the same vector."""
    english = ("Did {} defeat {}?", "Is {} larger than {}?", "How do I convert {} to {}?", "Was {} built before {}?")
    chinese = ("{}打败了{}吗？", "{}比{}大吗？", "如何把{}换成{}？", "{}早于{}吗？")
    for templates, names in (
        (english, ("France", "Germany", "Spain", "Italy")),
        (chinese, ("法国", "德国", "英国", "意大利")),
    ):
        for template, (one, other) in itertools.product(templates, itertools.combinations(names, 2)):
            yield Pair("order", template.format(one, other), template.format(other, one))


_OTHER_WORD = {
    "when": "where",
    "where": "when",
    "who": "what",
    "what": "who",
    "which": "whose",
    "many": "much",
    "why": "how",
    "first": "last",
    "last": "first",
    "most": "least",
    "least": "most",
    "before": "after",
    "after": "before",
    "not": "ever",
    "never": "always",
    "more": "less",
    "less": "more",
    "highest": "lowest",
    "largest": "smallest",
    "is": "isn't",
    "was": "wasn't",
    "are": "were",
    "did": "didn't",
    "does": "doesn't",
    "were": "weren't",
    "north": "south",
    "south": "north",
    "east": "west",
    "in": "before",
    "to": "from",
    "from": "to",
    "with": "without",
    "best": "worst",
    "over": "under",
    "can": "cannot",
    "has": "had",
    "century": "decade",
    "year": "month",
}
_OTHER_CHARACTERS = {
    "什么时候": "什么地方",
    "哪里": "何时",
    "多少": "哪些",
    "最多": "最少",
    "最大": "最小",
    "最高": "最低",
    "谁": "什么",
    "之前": "之后",
    "之后": "之前",
    "第一": "第二",
    "为什么": "怎么",
    "如何": "为何",
    "是": "不是",
    "有": "没有",
    "能": "不能",
    "可以": "不可以",
    "年": "月",
    "北": "南",
    "东": "西",
    "男": "女",
    "增加": "减少",
    "大于": "小于",
}
_WORD = re.compile(r"[A-Za-z]+")
_NAME = re.compile(r"(?<=[a-z] )[A-Z][a-z]+(?: [A-Z][a-z]+)*")


def of_real(english: Sequence[str], chinese: Sequence[str]) -> Iterator[Pair]:
    """Yield each question with one thing in it replaced: a number, a name, a word that turns its meaning."""
    names = sorted({name for question in english for name in _NAME.findall(question)})
    for question in english:
        yield from _replaced(question, _WORD, lambda word: _OTHER_WORD.get(word.lower()), "real word")
        yield from _replaced(question, _NAME, lambda name: names[names.index(name) - 1], "real name")
    several = re.compile("|".join(sorted(_OTHER_CHARACTERS, key=len, reverse=True)))
    for question in chinese:
        yield from _replaced(question, several, _OTHER_CHARACTERS.get, "real word")
    for question in (*english, *chinese):
        yield from _replaced(question, re.compile(r"\d+"), lambda number: str(int(number) + 1), "real number")


def _replaced(question: str, pattern: re.Pattern[str], other: Callable[[str], str | None], kind: str) -> Iterator[Pair]:
    for found in pattern.finditer(question):
        if (word := other(found.group())) is not None and word != found.group():
            yield Pair(kind, question, question[: found.start()] + word + question[found.end() :])


_ASCII_WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_NARROW = {0xFF0C: ",", 0xFF1F: "?", 0xFF01: "!", 0xFF1A: ":", 0xFF1B: ";", 0xFF08: "(", 0xFF09: ")"}
_BETWEEN = re.compile(r"(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])")
# name -> how the question is typed, by language
VARIANTS: dict[str, dict[str, Callable[[str], str]]] = {
    "en": {
        "lower case": str.lower,
        "upper case": str.upper,
        "spaces": lambda text: f"  {'  '.join(text.split())}\n",
        "no question mark": lambda text: text.rstrip("?. "),
        "more of them": lambda text: text.rstrip("?. ") + " ???",
        "quoted": lambda text: f"“{text.strip()}”",
        "full width": lambda text: text.translate(_ASCII_WIDE),
        "please": lambda text: f"Please tell me: {text}",
        "could you": lambda text: f"Could you please tell me, {text}",
        "to know": lambda text: f"I would like to know {text}",
        "hello": lambda text: f"Hello, {text}",
        "thanks": lambda text: f"{text.rstrip('?. ')}? Thanks!",
    },
    "zh": {
        "spaces": lambda text: _BETWEEN.sub(" ", text),
        "no question mark": lambda text: text.rstrip("?？。"),
        "more of them": lambda text: text.rstrip("?？。") + "？？",
        "half width": lambda text: text.translate(_NARROW),
        "full width": lambda text: text.translate(_ASCII_WIDE),
        "please": lambda text: f"请问，{text}",
        "tell me": lambda text: f"请告诉我{text}",
        "to know": lambda text: f"我想知道{text}",
        "could you": lambda text: f"你能告诉我{text.rstrip('?？。吗')}吗？",
        "hello": lambda text: f"你好，请问{text}",
        "thanks": lambda text: f"{text.rstrip('?？。')}？谢谢！",
        "particle": lambda text: f"{text.rstrip('?？。吗呢')}呢？",
    },
}
