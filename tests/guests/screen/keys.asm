; Keys by INT 16h, as scan code and character in hexadecimal; the clock of INT 1Ah before them.
        bits 16
        org 0x7C00
start:  xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7C00
        mov ax, 0x0003
        int 0x10
        mov ah, 0                       ; the clock goes on
        int 0x1A
        mov bx, dx
tick:   mov ah, 0
        int 0x1A
        sub dx, bx
        cmp dx, 2
        jb tick
        mov ah, 2                       ; the hour, packed decimal
        int 0x1A
        mov al, ch
        call hexout
        mov al, '>'
        call letter
key:    mov ah, 0x10
        int 0x16
        push ax
        mov al, ah
        call hexout
        pop ax
        call hexout
        mov al, ' '
        call letter
        jmp key
hexout: push ax
        shr al, 4
        call digit
        pop ax
digit:  and al, 0x0F
        cmp al, 10
        sbb al, 0x69
        das
letter: mov ah, 0x0E
        mov bx, 7
        int 0x10
        ret
        times 510-($-$$) db 0
        dw 0xAA55
