"""The ledger keeps what is accepted, and says why the rest is not."""

from tests.helpers.made_up_records import make_record
from uno_jax.data.conversion.ledger import Ledger, by_field
from uno_jax.data.conversion.parts import convert
from uno_jax.data.sources.source import Made, Rejection


def item(id_, *records, line=1, split="train", rejections=()):
    return convert(Made(split, records, rejections, id_, "a.csv", line))[0]


def ledger_of(*items, known=None):
    ledger = Ledger(lambda rejection: None, known)
    ledger.add((0, 0), items)
    return ledger


def ids(ledger):
    return {split: [record.id for record in records] for split, records in ledger.stored.items()}


def test_the_first_item_with_an_id_has_it():
    ledger = ledger_of(item("a", make_record(1), line=1), item("a", make_record(2), line=2))
    assert ids(ledger) == {"train": ["record1"]}
    assert [str(entry) for entry in ledger.rejections] == [
        "a.csv:2: record 'a', field 'id': a.csv:1 already has the id 'a'. Give every record a unique id."
    ]


def test_a_rejected_item_has_its_id_all_the_same():
    broken = Rejection("a.csv", 1, "a", "image", "damaged", "Replace it")
    ledger = ledger_of(item("a", line=1, rejections=(broken,)), item("a", make_record(2), line=2))
    assert (ledger.accepted, ledger.rejected) == (0, 2)


def test_ids_of_different_splits_may_be_equal():
    assert ids(ledger_of(item("a", make_record(1)), item("a", make_record(1), split="odd", line=2))) == {
        "train": ["record1"],
        "odd": ["record1"],
    }


def test_records_follow_each_other_in_the_file_of_their_part_whether_accepted_or_not():
    ledger = ledger_of(item("a", make_record(1)), item("a", make_record(2), line=2), item("b", make_record(3), line=3))
    first, second = ledger.stored["train"]
    rejected = convert(Made("train", (make_record(2),)))[0].records[0]
    assert second.start == first.length + rejected.bytes


def test_what_the_dataset_has_is_left_out_but_not_rejected():
    ledger = ledger_of(item("a", make_record(1)), item("b", make_record(2), line=2), known={"train": ["record1"]})
    assert ids(ledger) == {"train": ["record2"]}
    assert (ledger.rejected, [entry.cause for entry in ledger.left_out]) == (0, ["already_there"])


def test_rejections_are_counted_by_field_and_cause():
    found = [Rejection("a", 1, "", f"captions[{n}]", "empty", "") for n in range(3)]
    found.append(Rejection("a", 2, "", "image", "gone", "", "picture_missing"))
    assert by_field(found) == {"captions": 3, "image picture_missing": 1}
