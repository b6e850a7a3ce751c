"""What the metrics of language models are, written as loops over numbers of Python."""

import math


def log_softmax(logits):
    largest = max(logits)
    total = math.log(math.fsum(math.exp(x - largest) for x in logits)) + largest
    return [x - total for x in logits]


def kl(of, under):
    p, q = log_softmax(of), log_softmax(under)
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True) if a > -math.inf)


def measured(parts):
    """All metrics over `(student, teacher, labels, label_bytes)`, tensors of rows and tokens."""
    student_nats, teacher_nats, forward, reverse, text, equal = [], [], [], [], 0, 0
    for student, teacher, labels, label_bytes in parts:
        for i in range(labels.shape[0]):
            for j in range(labels.shape[1]):
                label = int(labels[i, j])
                if label == -100:
                    continue
                s, t = student[i, j].double().tolist(), teacher[i, j].double().tolist()
                student_nats.append(-log_softmax(s)[label])
                teacher_nats.append(-log_softmax(t)[label])
                shared = min(len(s), len(t))
                s, t = s[:shared], t[:shared]
                forward.append(kl(t, s))
                reverse.append(kl(s, t))
                equal += s.index(max(s)) == t.index(max(t))
                text += int(label_bytes[i, j])
    n = len(student_nats)
    bits = [math.fsum(nats) / math.log(2) / text for nats in (student_nats, teacher_nats)]
    return {
        "perplexity": math.exp(math.fsum(student_nats) / n),
        "teacher_perplexity": math.exp(math.fsum(teacher_nats) / n),
        "bits_per_byte": bits[0],
        "teacher_bits_per_byte": bits[1],
        "forward_kl": math.fsum(forward) / n,
        "reverse_kl": math.fsum(reverse) / n,
        "agreement": equal / n,
    }
