"""English verbs and their forms: what a word may be, and the verb that it is a form of.

The lists are closed, so that a word that is not among them is no verb; of words in -ed that are in none of the lists
the word itself stands for the verb.
"""

from typing import NamedTuple

# verb past[/past] participle[/participle]
_IRREGULAR = """arise arose arisen;awake awoke awoken;bear bore born/borne;beat beat beaten;become became become;
begin began begun;bend bent bent;bind bound bound;bite bit bitten;blow blew blown;break broke broken;breed bred bred;
bring brought brought;broadcast broadcast broadcast;build built built;burn burned/burnt burned/burnt;buy bought bought;
cast cast cast;catch caught caught;choose chose chosen;come came come;cost cost cost;cut cut cut;deal dealt dealt;
dig dug dug;draw drew drawn;drink drank drunk;drive drove driven;eat ate eaten;fall fell fallen;feed fed fed;
fight fought fought;flee fled fled;fly flew flown;forbid forbade forbidden;forget forgot forgotten;
freeze froze frozen;get got got/gotten;give gave given;go went gone;grow grew grown;hang hung/hanged hung/hanged;
have had had;hide hid hidden;hit hit hit;hold held held;hurt hurt hurt;keep kept kept;know knew known;lay laid laid;
lead led led;learn learned/learnt learned/learnt;leave left left;lend lent lent;lie lay lain;light lit lit;
lose lost lost;make made made;meet met met;overcome overcame overcome;oversee oversaw overseen;
overthrow overthrew overthrown;pay paid paid;put put put;quit quit quit;read read read;rebuild rebuilt rebuilt;
ride rode ridden;ring rang rung;rise rose risen;run ran run;see saw seen;seek sought sought;sell sold sold;
send sent sent;set set set;shake shook shaken;shoot shot shot;shut shut shut;sing sang sung;sink sank sunk;
sit sat sat;sleep slept slept;speak spoke spoken;spend spent spent;split split split;spread spread spread;
stand stood stood;steal stole stolen;strike struck struck;sweep swept swept;swim swam swum;take took taken;
teach taught taught;tear tore torn;tell told told;throw threw thrown;undergo underwent undergone;
undertake undertook undertaken;wear wore worn;weave wove woven;win won won;withdraw withdrew withdrawn;
write wrote written;rewrite rewrote rewritten;say said said;think thought thought;feel felt felt;hear heard heard;
mean meant meant;understand understood understood"""
_REGULAR = """abandon abolish absorb accept accompany accuse achieve acquire adapt add address adjoin admire admit adopt
advise affect agree allow amend announce annex appear apply appoint approve arrange arrest arrive assassinate assemble
assist assume attach attract attend award ban base behave believe belong besiege betray blame bless bomb border borrow
bury call cancel capture carry cease celebrate change charge chase circle cite claim classify close coach collaborate
collapse collect colonise colonize combine command commemorate commission commit compare compete complete compose
comprise compute conceive conclude condemn conduct confirm conquer connect consider consist constitute construct consult
consume contain continue contract contribute control convert convict cooperate correct cover create criticise
criticize cross crown cultivate cure damage date debate debut decide declare decline decorate dedicate defeat defend
define deliver demand demolish demonstrate deny depict deploy depose derive describe deserve design designate destroy
detect determine develop devise die differ direct disappear discover discuss disperse display dissolve distribute divide
document dominate donate drop earn edit educate elect eliminate emerge emigrate employ enable enclose encounter end
endorse enforce enjoy enter equip erect escape establish evacuate evolve examine exceed exclude execute exhibit exist
expand expel experience explain explode explore export express extend fail father feature fill film finance finish
flourish flow follow force form formulate found fund gain generate govern graduate grant guard guide handle happen head
help host house identify illustrate immigrate implement import impose imprison improve include incorporate increase
indicate influence inform inhabit inherit initiate injure inspire install integrate intend introduce invade invent
invest investigate invite involve isolate issue join judge kill kidnap know label lack last launch liberate license
limit link live locate love maintain manage manufacture march mark marry measure mediate mention merge migrate mine
modify move murder name narrate negotiate neighbour nominate note nurse obtain occupy occur offer open operate oppose
orbit order organise organize originate own paint participate pass patent patrol perform permit persuade photograph
pioneer place plan plant play please portray possess praise predict premiere prepare present preserve preside press
prevent print proclaim produce prohibit promote propose protect prove provide publish pull punish purchase push raise
rank reach realise realize receive recognise recognize record recruit reduce refer reflect refuse regulate reign reject
relate release remain remember remove rename render renovate rent repair repeal replace report represent reproduce
request require rescue research resemble reside resign restore restrict result retain retire return reunite reveal
reverse revise revive reward rule sack sail sample save score sculpt seat secure select separate serve settle shape
share shell ship show sign situate smash sponsor stage star start station stay stop store strengthen stretch study
submit succeed suffer suggest supply support suppress surrender surround survive suspect suspend sustain symbolise
symbolize target tax terminate test threaten tie tour trace trade train transfer transform translate transmit transport
travel treat trigger turn unify unite unveil use utilise utilize value view violate visit voice vote wait walk want warn
wash watch welcome widen witness work worship worry yield appeal argue assert attack attempt borrow boycott cause chair
challenge contest count dispute doubt estimate expect fear free hope hunt imply interview kick like look need observe
produce pursue question rain rescue seem stress tend try wish compile staff stagnate peak certify chart
compel crash cruise defect deprive descend disband dismantle donate double embrace encourage enlarge escort exile
exploit fortify harm heal ignite inaugurate infect inflict insert intercept interrupt kidnap land last loot
massacre mobilise mobilize obey oust overlook peak persecute plague plunder populate praise predate prescribe prosecute
ratify rebel recover redesign regain reinforce relocate render repel resume revolt ridicule rival rob sanction schedule
secede shift slow stem store stretch strip summon suppress swear tackle tolerate topple treat unearth uphold urge vary
veto warn weaken yield climb sue"""
_DOUBLED_WORDS = """admit ban cancel commit control drop expel kidnap permit plan prefer refer stop submit transfer
    travel patrol star"""
_DOUBLED = frozenset(_DOUBLED_WORDS.split())
# Words that far more often name something: only their -ed forms are taken for verbs.
_MOSTLY_NOUNS_WORDS = """address award base change charge circle coach command commission contract control cost
    cover damage date debate debut deal demand design display document drop end experience export father feature
    film finance finish force form fund grant guard guide head house import increase influence issue judge label
    lack last license light like limit link march mark measure mine murder need nurse offer order patent patrol
    photograph pioneer place plan plant premiere present press purchase question rain rank record release rent
    report request research result return reward sack sample score seat set shape share shell ship show sign stage
    star station store stress study supply support target tax test tie tour trace trade train transport trigger
    value view visit voice vote work worry attack attempt cast cause chair challenge contest count cut dispute doubt
    estimate fear fight free hope hunt interview kick look neighbour orbit play pass present project broadcast run
    rule state land shift slow stem strip schedule sanction rival plague peak staff revolt double crash cruise chart
    name water man may can close open complete separate correct move quit hit split spread interest wish dig walk
    watch wash"""
_MOSTLY_NOUNS = frozenset(_MOSTLY_NOUNS_WORDS.split())
_PREFIXES = frozenset(["co", "re", "over", "under", "out", "mis", "pre", "counter", "self", "cross"])
_NO_ED_VERBS_WORDS = """bed red hundred need seed speed feed weed breed creed greed deed indeed sacred naked wicked
    hatred kindred rugged ragged crooked wretched beloved aged embed exceed proceed succeed shed sled unprecedented
    so-called biased talented gifted skilled unmanned infrared centred alleged supposed united assorted varied
    detailed limited advanced learned aforementioned crowded"""
_NO_ED_VERBS = frozenset(_NO_ED_VERBS_WORDS.split())

class Form(NamedTuple):
    """What a word is as a form of a verb: ``base``, ``third`` ("writes"), ``past``, ``participle``, ``ing``."""

    verb: str
    kinds: frozenset[str]


def _ed(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return (verb + verb[-1] if verb in _DOUBLED else verb) + "ed"


def _third(verb: str) -> str:
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "o", "z")) else "s")


def _ing(verb: str) -> str:
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe")):
        return verb[:-1] + "ing"
    doubled = verb in _DOUBLED or verb in ("run", "win", "begin", "set", "put", "cut", "get", "sit", "dig", "swim")
    return (verb + verb[-1] if doubled else verb) + "ing"


def _forms() -> dict[str, Form]:
    forms: dict[str, Form] = {}

    def add(form: str, verb: str, kind: str) -> None:
        known = forms.get(form, Form(verb, frozenset()))
        if known.verb == verb:
            forms[form] = Form(verb, known.kinds | {kind})

    verbs: dict[str, tuple[list[str], list[str]]] = {}
    for line in _IRREGULAR.replace("\n", " ").split(";"):
        verb, past, participle = line.split()
        verbs[verb] = past.split("/"), participle.split("/")
    for verb in _REGULAR.split():
        verbs.setdefault(verb, ([_ed(verb)], [_ed(verb)]))
    for verb, (pasts, participles) in verbs.items():
        for past in pasts:
            add(past, verb, "past")
        for participle in participles:
            add(participle, verb, "participle")
        add(_ing(verb), verb, "ing")
        add(verb, verb, "base")
        add(_third(verb), verb, "third")
    forms["has"] = Form("have", frozenset({"third"}))
    # The past of "find" far more often than what "founded" is of; both are kept as they stand.
    forms["found"] = Form("found", frozenset({"past", "participle"}))
    return forms


FORMS = _forms()
VERB_OF = {word: form.verb for word, form in FORMS.items()
           if form.kinds & {"past", "participle"}
           or (form.kinds & {"base", "third"} and form.verb not in _MOSTLY_NOUNS)}
"""Every form of a known verb but that in -ing → the verb; of what is a noun far more often ("rule", "works") only the
forms of the past."""


def form_of(word: str) -> Form | None:
    """What a word in lower case is as a form of a verb, None for what is none; a prefix ("co-founded") belongs to the
    verb."""
    prefix, hyphen, rest = word.rpartition("-")
    if hyphen:
        form = form_of(rest) if prefix in _PREFIXES else None
        return form and Form(f"{prefix}-{form.verb}", form.kinds)
    if word in FORMS:
        return FORMS[word]
    if len(word) > 4 and word.endswith("ed") and word not in _NO_ED_VERBS and word.isalpha():
        return Form(word, frozenset({"past", "participle"}))
    return None


def is_mostly_a_noun(form: Form) -> bool:
    return form.verb in _MOSTLY_NOUNS

