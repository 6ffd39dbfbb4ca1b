"""What is drawn of a graph of facts."""

from tickwise.tasks.graph_drawing import MOST_FACTS, picture_of_answer, picture_of_graph
from tickwise.tasks.knowledge import build_graph


def graph(*facts):
    return build_graph([(*fact, f"line {i}") for i, fact in enumerate(facts)])


def test_the_path_of_an_answer_is_drawn_from_the_questions_name_on():
    made = graph(("Paris", "capital of", "France"), ("Ada", "born in", "London"), ("London", "located in", "England"),
                 ("England", "population", "56 million"), ("England", "is a", "country"))
    picture = picture_of_answer(made.ask("What is the population of the country where Ada was born?"))
    assert [tuple(arrow) for arrow in picture.arrows] == [
        ("Ada", "born in", "London"), ("London", "located in", "England"), ("England", "population", "56 million")]
    assert (picture.first, picture.marked) == ("Ada", {"56 million"})
    assert picture.rows[0][3] == "line 1; line 2; line 3"


def test_what_is_against_an_answer_is_drawn_too():
    made = graph(("Ada", "born in", "London"), ("Ada", "was not born in", "London"))
    picture = picture_of_answer(made.ask("Where was Ada born?"))
    assert [arrow.label for arrow in picture.arrows] == ["born in", "not born in"]
    assert picture.rows[1][0] == "against it"


def test_a_small_graph_is_drawn_whole():
    picture = picture_of_graph(graph(("A", "part of", "B"), ("C", "part of", "D")), "Facts")
    assert (len(picture.arrows), picture.text) == (2, "all 2 facts")


def test_of_a_large_graph_the_facts_around_the_largest_name_are_drawn_and_named():
    far = [(f"x{i}", "near", f"y{i}") for i in range(200)]
    made = graph(*far, *[("Hub", "like", f"thing {i}") for i in range(5)], ("thing 2", "part of", "Box"))
    picture = picture_of_graph(made, "Facts")
    assert {arrow.start for arrow in picture.arrows} == {"Hub", "thing 2"}
    assert picture.text.startswith("6 of 206 facts: those nearest to Hub")
    many = picture_of_graph(graph(*[("Hub", "like", f"thing {i}") for i in range(500)]), "Facts")
    assert len(many.arrows) == MOST_FACTS
